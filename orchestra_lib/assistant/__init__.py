"""The coding assistant: its model, the memory that it is given, what it costs, and Code Assist's set-up."""
