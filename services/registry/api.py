"""HTTP of the registry, by subject."""

from __future__ import annotations

from fastapi import APIRouter

from services.registry import api_operations, api_privacy, api_resources, api_responders, api_sites

router = APIRouter(prefix="/v1", tags=["registry"])
for part in (api_operations, api_responders, api_privacy, api_resources, api_sites):
    router.include_router(part.router)
