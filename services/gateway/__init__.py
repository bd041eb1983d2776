"""One HTTP origin for all services. Owns no data and decides nothing."""
