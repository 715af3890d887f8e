"""A machine that boots the host image: a fresh copy of its disk, and QEMU's command line (described in images/README.md)."""

import json
import shutil
import socket
import subprocess
import time

from boot import ENVIRONMENT, drive, qemu, run, stop

# What the guest reaches of the outside, and nothing else of it.
VERIFIER = "10.0.2.100:8443"
PROVISION = "opt/org.hostmark.provision"
SHELL = "org.hostmark.test"


def copy_disk(image, folder, kernel=None, secure=False):
    """The image's disk and variables in `folder`; `kernel` is put on the EFI partition instead of the image's own."""
    run("cp", "--sparse=always", image / "disk.img", folder / "disk.img")
    shutil.copyfile(image / ("vars.secure.fd" if secure else "vars.fd"), folder / "vars.fd")
    if kernel:
        offset = json.loads((image / "layout.json").read_text())["esp"]["offset"]
        run("mcopy", "-o", "-i", f"{folder / 'disk.img'}@@{offset}", kernel, "::EFI/BOOT/BOOTX64.EFI")


def host_machine(folder, tpm_socket, secure, serial, provision=None, verifier=None, shell=None):
    """QEMU's command line for the disk and variables in `folder`.

    provision: the file handed over as fw_cfg item. verifier: a loopback port, reached from the guest at VERIFIER.
    shell: a unix socket to make, for the test image's root shell.
    """
    command = [*qemu(folder / "vars.fd", serial, tpm_socket, secure, memory=2048, processors=2),
               *drive(folder / "disk.img")]
    network = "user,id=net,restrict=on"
    if verifier:
        network += f",guestfwd=tcp:{VERIFIER}-cmd:busybox nc 127.0.0.1 {verifier}"
    command += ["-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="]
    if provision:
        command += ["-fw_cfg", f"name={PROVISION},file={provision}"]
    if shell:
        command += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=shell,path={shell},server=on,wait=off",
                    "-device", f"virtserialport,chardev=shell,name={SHELL}"]
    return command


class Guest:
    """A running host image, and the root shell on its test port."""

    def __init__(self, command, shell, log):
        self.log = log.open("wb")
        self.process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.stream = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            if shell.exists():
                break
            time.sleep(0.1)
        try:
            self.stream.connect(str(shell))
        except OSError as error:
            self.end()
            stop(f"QEMU did not start: {error}; {log.read_text(errors='replace')}", 1)
        self.count = 0

    def run(self, script, limit):
        """Runs a script in a subshell; its status and output. TimeoutError after `limit` seconds."""
        self.count += 1
        end = f"\nend-of-script-{self.count} ".encode()
        # What is sent before the guest's shell has started waits in QEMU.
        self.stream.sendall(f"(\n{script}\n) </dev/null 2>&1\nprintf '\\nend-of-script-%d %d.\\n' {self.count} $?\n".encode())
        deadline, seen = time.monotonic() + limit, b""
        while not (end in seen and seen.endswith(b".\n")):
            self.stream.settimeout(max(0.1, deadline - time.monotonic()))
            more = self.stream.recv(65536)
            if not more:
                raise TimeoutError(f"the guest ended during:\n{script}\n{seen.decode(errors='replace')}")
            seen += more
            if time.monotonic() > deadline:
                raise TimeoutError(f"no end within {limit} s of:\n{script}\n{seen.decode(errors='replace')}")
        text, status = seen.rsplit(end, 1)
        return int(status.strip(b".\n")), text

    def power_off(self, limit):
        self.stream.sendall(b"systemctl poweroff\n")
        try:
            self.process.wait(limit)
        finally:
            self.end()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stream.close()
        self.log.close()
