"""Application credits (SPEC 8): bought by freelancers, one spent for each application to a project."""
