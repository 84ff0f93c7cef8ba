"""How often somebody may try: allowances by address and by account (SPEC 2)."""
