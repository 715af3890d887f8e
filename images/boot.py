"""What every image of this folder is made with: initrd, unified kernel image, EFI partition, a TPM, QEMU's command line.

The same input gives the same bytes (pinned times, UUIDs and PE header): two boots differ in the TPM's keys and in nothing
that firmware measures.
"""

import os
import shutil
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

IMAGES = Path(__file__).resolve().parent
OUT = IMAGES / "out"
FIRMWARE = Path("/usr/share/OVMF")
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
ESP_SIZE = 64 << 20
TOOLS = ["qemu-system-x86_64", "swtpm", "swtpm_setup", "swtpm_localca", "objcopy", "mkfs.ext4", "mkfs.vfat", "mcopy", "mmd",
         "cpio", "gzip", "busybox"]
# In the order in which they need each other.
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"]
# Every time stamp in what is built: any constant will do.
EPOCH = 1700000000
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": str(EPOCH),
               "PATH": os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"}
PROGRAM = "/".join(Path(sys.argv[0]).resolve().parts[-2:]).removeprefix("images/")


def stop(message, code=2):
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    sys.exit(code)


def say(message):
    print(f"{PROGRAM}: {message}", flush=True)


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], env=ENVIRONMENT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    if done.returncode:
        stop(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')}", 1)
    return done.stdout


def run_filter(command, data, folder):
    return subprocess.run(command, input=data, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout


def find_tool(name):
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def missing(tools, files):
    """Names of the tools and files that this machine lacks."""
    return [tool for tool in tools if not find_tool(tool)] + [path.name for path in files if not path.exists()]


def check_space(bytes_needed):
    OUT.mkdir(exist_ok=True)
    free = shutil.disk_usage(OUT).free
    if free < bytes_needed:
        stop(f"needs {bytes_needed >> 20} MiB below images/out, {free >> 20} MiB are free")


def settle(tree):
    """The same modes and times whoever builds, and whenever."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def build_initrd(work, name, modules, init, applets):
    """A busybox initrd that loads the virtio modules and runs the script `init`."""
    tree = work / name
    for folder in ("bin", "dev", "proc", "sys", "root", "modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(find_tool("busybox"), tree / "bin/busybox")
    for applet in ("sh", "mount", "insmod", "sleep", "switch_root", "poweroff", *applets):
        (tree / "bin" / applet).symlink_to("busybox")
    for module in MODULES:
        found = next((modules / "kernel/drivers").rglob(f"{module}.ko"), None)
        if not found:
            stop(f"the kernel has no module {module}", 1)
        shutil.copy(found, tree / "modules" / found.name)
    (tree / "init").write_bytes(init)
    settle(tree)
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    archive = run_filter(["cpio", "--quiet", "-o", "-H", "newc", "--reproducible", "--owner=+0:+0"], names.encode(), tree)
    initrd = work / f"{name}.img"
    initrd.write_bytes(run_filter(["gzip", "-n"], archive, tree))
    return initrd


def build_uki(work, name, kernel, initrd, cmdline, os_release):
    """A unified kernel image (systemd's stub), unsigned."""
    (work / "cmdline").write_bytes(cmdline.encode())
    (work / "os-release").write_text(os_release)
    uki = work / name
    sections = [(".osrel", work / "os-release", 0x20000), (".cmdline", work / "cmdline", 0x30000),
                (".linux", kernel, 0x2000000), (".initrd", initrd, 0x4000000)]
    command = ["objcopy"]
    for section, path, address in sections:
        command += ["--add-section", f"{section}={path}", "--change-section-vma", f"{section}={address:#x}"]
    run(*command, STUB, uki)
    image = bytearray(uki.read_bytes())
    header = struct.unpack_from("<I", image, 0x3c)[0]
    struct.pack_into("<I", image, header + 8, EPOCH)  # IMAGE_FILE_HEADER.TimeDateStamp
    struct.pack_into("<I", image, header + 24 + 64, 0)  # IMAGE_OPTIONAL_HEADER.CheckSum: firmware reads it for no application
    uki.write_bytes(image)
    return uki


def sign(uki, signed, key, certificate):
    run("sbsign", "--key", key, "--cert", certificate, "--output", signed, uki)
    return signed


def build_esp(disk, uki, offset=0):
    """A FAT file system of ESP_SIZE at `offset` of the file `disk`, with the image where firmware looks first."""
    # One sector a cluster: fewer clusters would make it FAT16 for some readers.
    run("mkfs.vfat", "-F", "32", "-s", "1", "-i", "484f5354", "--invariant", "--offset", offset // 512, disk, ESP_SIZE // 1024)
    run("mmd", "-i", f"{disk}@@{offset}", "::EFI", "::EFI/BOOT")
    run("mcopy", "-i", f"{disk}@@{offset}", uki, "::EFI/BOOT/BOOTX64.EFI")


def make_tpm(work):
    """A new TPM with EK certificates; the CA that issues them is made once and kept beside what is built."""
    authority, state = OUT / ".ca", work / "tpm"
    authority.mkdir(exist_ok=True, parents=True)
    state.mkdir()
    (work / "localca.conf").write_text(
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\nissuercert = {authority}/issuercert.pem\n"
        f"certserial = {authority}/certserial\n")
    (work / "localca.options").write_text("--platform-manufacturer Hostmark\n--platform-version 1\n--platform-model recorder\n")
    (work / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\ncreate_certs_tool_config = {work}/localca.conf\n"
        f"create_certs_tool_options = {work}/localca.options\n")
    run("swtpm_setup", "--tpm2", "--tpmstate", state, "--create-ek-cert", "--create-platform-cert",
        "--pcr-banks", "sha256", "--overwrite", "--config", work / "setup.conf")
    return state


@contextmanager
def running_tpm(work, state):
    """The software TPM on a socket, for as long as the block runs."""
    socket = work / "tpm.sock"
    with (work / "swtpm.log").open("wb") as log:
        tpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl",
                                f"type=unixio,path={socket}", "--terminate"], stdout=log, stderr=log, env=ENVIRONMENT)
        try:
            for _ in range(100):
                if socket.exists():
                    break
                time.sleep(0.1)
            yield socket
        finally:
            tpm.terminate()
            tpm.wait()


def drive(path, more=""):
    return ["-drive", f"file={path},format=raw,if=virtio{more}"]


def qemu(variables, serial, tpm_socket, secure, memory=1024, processors=1):
    """QEMU's command line but for the disks: a q35 machine under plain emulation, with OVMF and the TPM at that socket."""
    code = FIRMWARE / ("OVMF_CODE_4M.secboot.fd" if secure else "OVMF_CODE_4M.fd")
    command = ["qemu-system-x86_64", "-machine", f"q35,accel=tcg,smm={'on' if secure else 'off'}", "-cpu", "max",
               "-m", str(memory), "-smp", str(processors), "-nodefaults", "-display", "none", "-no-reboot",
               "-serial", serial,
               "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
               "-drive", f"if=pflash,unit=1,format=raw,file={variables}",
               "-chardev", f"socket,id=tpm,path={tpm_socket}", "-tpmdev", "emulator,id=tpm0,chardev=tpm",
               "-device", "tpm-crb,tpmdev=tpm0"]
    return command + (["-global", "driver=cfi.pflash01,property=secure,value=on"] if secure else [])
