"""Messages to people by SMS, WhatsApp, mail or webhook: a library of the services that send any. Knows no rule of
the field, and imports no service."""
