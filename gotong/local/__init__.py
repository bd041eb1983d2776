"""Everything that starts processes on one machine: PostgreSQL, a broker and the services, without Docker."""
