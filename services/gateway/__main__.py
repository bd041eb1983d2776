"""`python -m services.gateway`: the web process."""

import sys

from services.gateway.app import make_app
from services.runtime import logs
from services.runtime.service import run_loop, serve
from services.runtime.settings import Settings, SettingsMissing

if __name__ == "__main__":
    settings = Settings(service="gateway")
    logs.configure(settings.log)
    try:
        run_loop(serve(make_app(settings), settings))
    except SettingsMissing as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
