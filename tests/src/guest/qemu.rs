//! The emulator of a guest and its software TPM: two processes that end with their owner, and QEMU's own control socket.
//!
//! Plain emulation (no KVM), q35 with OVMF, a virtio disk, a CRB TPM, a serial log, a virtio-serial port for the shell. The
//! network ends at one address: what the guest sends to it reaches one port of this machine's loopback, nothing else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::image::{Image, tool_path};
use crate::process::Daemon;
use crate::wait::until;

/// The address that the guest knows its verifier by.
pub const VERIFIER_ADDRESS: &str = "10.0.2.100";
/// And the port.
pub const VERIFIER_PORT: u16 = 8443;
/// Memory of a guest: two engines and what the tests start.
const MEMORY_MIB: u32 = 2048;
/// The port of the test shell (unit hostmark-test-shell).
const SHELL_PORT: &str = "org.hostmark.test";
/// The fw_cfg item that holds the provisioning input.
const PROVISION_ITEM: &str = "opt/org.hostmark.provision";
/// Processes on this machine that only have to open a socket.
const OPENED: Duration = Duration::from_secs(20);

/// What a boot consists of.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    pub(super) directory: &'a Path,
    /// For what the processes say.
    pub(super) logs: &'a Path,
    pub(super) disk: &'a Path,
    pub(super) vars: &'a Path,
    pub(super) tpm: &'a Path,
    pub(super) serial: &'a Path,
    pub(super) secure_boot: bool,
    /// A file with the provisioning input; none: nothing is provided.
    pub(super) provision: Option<&'a Path>,
    /// The verifier's port on loopback; none: no network.
    pub(super) verifier: Option<u16>,
}

/// A machine that is switched on.
#[derive(Debug)]
pub(super) struct Qemu {
    process: Daemon,
    tpm: Daemon,
    qmp: BufReader<UnixStream>,
    shell: PathBuf,
}

impl Qemu {
    pub(super) fn start(boot: &Boot<'_>) -> anyhow::Result<Self> {
        let at = |name: &str| boot.directory.join(name);
        let (tpm_socket, qmp_socket, shell) = (at("tpm.sock"), at("qmp.sock"), at("shell.sock"));
        for socket in [&tpm_socket, &qmp_socket, &shell] {
            match std::fs::remove_file(socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let mut swtpm = owned("swtpm");
        swtpm.args(["socket", "--tpm2", "--terminate", "--tpmstate"]).arg(format!("dir={}", boot.tpm.display()));
        swtpm.arg("--ctrl").arg(format!("type=unixio,path={}", tpm_socket.display()));
        let mut tpm = Daemon::start("swtpm", &mut swtpm, &boot.logs.join("swtpm.log"))?;
        until("swtpm's socket", OPENED, || {
            tpm.must_run()?;
            Ok(tpm_socket.exists().then_some(()))
        })?;
        let mut process =
            Daemon::start("qemu", &mut command(boot, &tpm_socket, &qmp_socket, &shell), &boot.logs.join("qemu.log"))?;
        let (qmp, _) = until("QEMU's control socket", OPENED, || {
            process.must_run()?;
            Ok(UnixStream::connect(&qmp_socket).ok())
        })?;
        qmp.set_read_timeout(Some(OPENED))?;
        let mut this = Self { process, tpm, qmp: BufReader::new(qmp), shell };
        this.answer("QMP")?;
        this.control("qmp_capabilities", &json!({}))?;
        Ok(this)
    }

    /// The socket of the guest's shell.
    pub(super) fn shell(&self) -> &Path {
        &self.shell
    }

    pub(super) const fn process(&mut self) -> &mut Daemon {
        &mut self.process
    }

    /// SIGKILL to the machine; the TPM loses its power with it.
    pub(super) fn kill(mut self) {
        self.process.kill();
        self.tpm.kill();
    }

    /// Waits until the machine has switched itself off, and its TPM has written its state.
    pub(super) fn ended(mut self, within: Duration) -> anyhow::Result<()> {
        self.process.ended(within)?;
        // It ends when QEMU's connection does (`--terminate`).
        self.tpm.ended(OPENED)?;
        Ok(())
    }

    /// Plugs the guest's network cable in, or pulls it.
    pub(super) fn link(&mut self, up: bool) -> anyhow::Result<()> {
        self.control("set_link", &json!({ "name": "net0", "up": up })).map(drop)
    }

    /// One command of the QEMU Machine Protocol.
    pub(super) fn control(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.qmp.get_mut().write_all(format!("{line}\n").as_bytes())?;
        self.answer("return").with_context(|| command.to_owned())
    }

    /// The next message with this member; events in between are passed over.
    fn answer(&mut self, member: &str) -> anyhow::Result<Value> {
        loop {
            let mut line = String::new();
            if self.qmp.read_line(&mut line)? == 0 {
                self.process.must_run()?;
                bail!("QEMU closed its control socket");
            }
            let message: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if let Some(value) = message.get(member) {
                return Ok(value.clone());
            }
            if let Some(error) = message.get("error") {
                bail!("{error}");
            }
        }
    }
}

/// A command that the kernel kills when this thread ends, however it ends.
fn owned(program: &str) -> Command {
    let mut command = Command::new(tool_path("setpriv").unwrap_or_else(|| "setpriv".into()));
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

fn command(boot: &Boot<'_>, tpm: &Path, qmp: &Path, shell: &Path) -> Command {
    let smm = if boot.secure_boot { "on" } else { "off" };
    let code = Image::firmware(boot.secure_boot);
    let mut command = owned("qemu-system-x86_64");
    command
        .args(["-name", "hostmark-guest", "-machine", &format!("q35,accel=tcg,smm={smm}"), "-cpu", "max"])
        .args(["-smp", "2", "-m", &MEMORY_MIB.to_string()])
        // A reboot ends the emulator: the next boot is a new process with a new TPM power cycle.
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-rtc", "base=utc"])
        .arg("-serial")
        .arg(format!("file:{}", boot.serial.display()))
        .args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())])
        .args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={code}")])
        .args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", boot.vars.display())])
        // The page cache of this machine outlives the emulator, and this machine does not crash in a test.
        .args(["-drive", &format!("file={},format=raw,if=virtio,cache=unsafe", boot.disk.display())])
        .args(["-chardev", &format!("socket,id=tpm,path={}", tpm.display())])
        .args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-chardev", &format!("socket,id=shell,path={},server=on,wait=off", shell.display())])
        .args(["-device", &format!("virtserialport,chardev=shell,name={SHELL_PORT}")]);
    if boot.secure_boot {
        command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    }
    if let Some(input) = boot.provision {
        command.args(["-fw_cfg", &format!("name={PROVISION_ITEM},file={}", input.display())]);
    }
    let forward = boot.verifier.map_or_else(String::new, |port| {
        // QEMU starts the command for each connection that the guest makes.
        format!(",guestfwd=tcp:{VERIFIER_ADDRESS}:{VERIFIER_PORT}-cmd:busybox nc 127.0.0.1 {port}")
    });
    command
        .args(["-netdev", &format!("user,id=net0,restrict=on{forward}")])
        .args(["-device", "virtio-net-pci,netdev=net0,id=nic0,romfile="]);
    command
}
