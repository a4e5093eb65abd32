"""Files that a living process holds: advisory locks of the system (flock), which end with the process, however it ends.

A process number says little: it is given again, and means nothing in another container or on another machine. A lock is
the kernel's word. Descriptors are not inherited by programs that are started (O_CLOEXEC), so that a child which
outlives its parent holds nothing of it.

Some network file systems have no locks (NFS has them between machines from Linux 2.6.12 on, with its lock daemon or
version 4). There `lock` says None, nothing is taken for abandoned, and who relies on a lock says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def create(path: Path) -> int:
    """A new file, with the mode that the umask leaves of 0666; raises FileExistsError."""
    return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)


def open_or_create(path: Path) -> int:
    """The file's descriptor, made if it is not there; OSError for a symlink or a folder."""
    return os.open(path, _FLAGS | os.O_CREAT, 0o666)


def lock(handle: int) -> bool | None:
    """Whether the file is ours from now on; False: another holds it. None: this file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether `path` still leads to the open file, without a symlink: not deleted, moved or replaced."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


def abandoned(path: Path) -> int | None:
    """The locked descriptor of a regular file of ours that no living process holds; None where that is not so.

    Never follows a symlink, never touches what another user owns.
    """
    handle = None
    try:
        about = os.lstat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            return None
        handle = os.open(path, _FLAGS)
        if lock(handle) and is_at(handle, path) and not _is_open_elsewhere(about):
            return handle
    except OSError:
        pass
    if handle is not None:
        os.close(handle)
    return None


def remove_abandoned(path: Path) -> bool:
    """Delete a file that no living process holds; whether that was so."""
    handle = abandoned(path)
    if handle is None:
        return False
    try:
        path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _is_open_elsewhere(about: os.stat_result) -> bool:
    """Whether another process of this machine has the file open: one that writes without a lock. Linux only."""
    own = str(os.getpid())
    with suppress(OSError):
        for process in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):  # it ended, or is another user's
                for handle in os.listdir(f"/proc/{process}/fd") if process != own else ():
                    with suppress(OSError):
                        if os.path.samestat(os.stat(f"/proc/{process}/fd/{handle}"), about):
                            return True
    return False
