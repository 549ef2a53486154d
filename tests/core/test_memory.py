"""What a process may still take is the least that anybody allows it."""

from __future__ import annotations

from pathlib import Path

from matura.core.memory import bytes_left

GB = 2**30


def system(root: Path, **files: str) -> Path:
    """A machine with 8 GB to spare, and whatever else its files say."""
    usual = {
        "proc/meminfo": f"MemTotal: {16 * GB // 1024} kB\nMemAvailable: {8 * GB // 1024} kB\n",
        "proc/self/status": f"Name: python\nVmSize: {GB // 1024} kB\n",
        "proc/self/limits": "Max address space         unlimited            unlimited    bytes\n",
    }
    for name, text in (usual | {k.replace("__", "/"): v for k, v in files.items()}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def put(root: Path, group: str, **said: object) -> None:
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in said.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def test_a_machine_without_limits_says_what_is_available(tmp_path: Path) -> None:
    assert bytes_left(system(tmp_path)) == 8 * GB


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert bytes_left(tmp_path) is None


def test_this_machine_says_something() -> None:
    left = bytes_left()
    assert left is None or 2**20 < left < 2**50


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    root = system(tmp_path, proc__self__cgroup="0::/job/step\n")
    put(root, "job", max=4 * GB, current=3 * GB, stat=f"anon 5\ninactive_file {GB // 2}")
    put(root, "job/step", max="max", current=3 * GB)
    assert bytes_left(root) == GB + GB // 2
    put(root, "job/step", max=2 * GB, current=GB)
    assert bytes_left(root) == GB
    put(root, "job/step", max=GB, current=2 * GB)
    assert bytes_left(root) == 0


def test_groups_of_the_first_kind(tmp_path: Path) -> None:
    root = system(tmp_path, proc__self__cgroup="5:cpu,cpuacct:/x\n4:memory:/box\n")
    put(root, "memory", limit_in_bytes=2**63 - 4096, usage_in_bytes=3 * GB)
    assert bytes_left(root) == 8 * GB
    put(root, "memory/box", limit_in_bytes=3 * GB, usage_in_bytes=GB)
    assert bytes_left(root) == 2 * GB


def test_a_limit_on_addresses(tmp_path: Path) -> None:
    line = f"Max address space         {3 * GB}           unlimited            bytes\n"
    assert bytes_left(system(tmp_path, proc__self__limits=line)) == 2 * GB
