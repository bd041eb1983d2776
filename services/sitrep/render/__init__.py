"""Renderings of the report's document; each is a pure function of the document and the language."""
