"""`python -m comfyweb doctor`."""
