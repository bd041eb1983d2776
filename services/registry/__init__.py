"""Who and what exists, and who may be asked: operations, organisations, responders and their contacts, resources."""
