"""Where channels and form servers call us, one file for each standard: each knows its provider's wire and nothing of
what a message means."""

from fastapi import APIRouter

from services.intake.hooks import kobo, openrosa, rapidpro, twilio, whatsapp

router = APIRouter(tags=["hooks"])
for hook in (twilio, whatsapp, rapidpro, openrosa, kobo):
    router.include_router(hook.router)
