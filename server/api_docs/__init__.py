"""The documents of the API, made from the tables that also drive it: the route table and the event table.

Nothing in here is written twice: a path, a field, a bound, an error code or an event that is not in a table is in no document.
"""
