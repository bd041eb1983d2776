"""Where things are kept on this machine: data, cache, the secret key."""

import base64
import os
import secrets
import subprocess
import tempfile
from pathlib import Path

from gotong.local.process import Account, LocalError, nobody

SYSTEM_FOLDER = Path("/var/lib/gotong")
# As root, others may pass through to what is theirs, but not look around.
_MODE = 0o711 if os.geteuid() == 0 else 0o700


def default_data() -> Path:
    """`.gotong/` in the current folder; as root in a folder that others cannot enter, `/var/lib/gotong`.

    PostgreSQL refuses to run as root, so its account must be able to reach what it stores.
    """
    here = Path.cwd()
    if os.geteuid() == 0 and not enterable(here, nobody()):
        return SYSTEM_FOLDER
    return here / ".gotong"


def data_folder(wanted: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: what was asked for, else GOTONG_DATA, else the default. Not made yet."""
    chosen = wanted or os.environ.get("GOTONG_DATA")
    return Path(chosen).absolute() if chosen else default_data()


def cache_folder(data: Path | None = None) -> Path:
    """What can be fetched again at any time (broker jars): GOTONG_CACHE, else `cache` in the data folder."""
    chosen = os.environ.get("GOTONG_CACHE")
    return Path(chosen).absolute() if chosen else (data or data_folder()) / "cache"


def make_folder(folder: Path) -> Path:
    """Make a folder for our own files; root lets others through, as PostgreSQL's account has its part within."""
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(_MODE)  # whatever the umask is
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise LocalError(f"The folder {folder} cannot be written; choose another with --data.")
    return folder


def scratch_folder(prefix: str = "gotong-") -> Path:
    """A new temporary folder that PostgreSQL's account can enter even when we are root (pytest's are 0700)."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(_MODE)
    return folder


def enterable(folder: Path, account: Account) -> bool:
    """Whether an account can go into a folder. It is tried, not computed: mode bits are only a part of the answer."""
    tried = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)],
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


def secret_key(data: Path) -> str:
    """The one secret of an installation: GOTONG_SECRET_KEY, else the file `secret.key`, made at the first start."""
    given = os.environ.get("GOTONG_SECRET_KEY")
    if given:
        return given
    path = make_folder(data) / "secret.key"
    # Linked into place whole: two first starts at once end with one key, and a crash never leaves half a key.
    if not path.exists():
        draft = path.with_name(f"secret.key.{os.getpid()}")
        draft.touch(mode=0o600)
        with draft.open("w") as out:
            out.write(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")
            out.flush()
            os.fsync(out.fileno())  # contacts can never be read again without it
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
