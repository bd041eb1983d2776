"""Shared plumbing of the services. Knows no field term; the one folder here that is not a service."""
