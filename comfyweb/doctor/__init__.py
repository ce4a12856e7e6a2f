"""`python -m comfyweb doctor`: looks at all that comfyweb needs, and says what to do where something is wrong."""
