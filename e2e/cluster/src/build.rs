//! Builds the cluster's programs from pinned Go modules, once per hash of the module files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::addons;
use crate::checkout::{Checkout, cache_root};
use crate::command::{command, run};
use crate::error::{Doing, Error, Result};
use crate::{packages, preflight};

/// Calico's release that the pseudo-version in `modules/calico/go.mod` stands for.
const CALICO_VERSION: &str = "v3.28.5";
const LOCAL_PATH_VERSION: &str = "v0.0.30";
const STRIP: &str = "-s -w";
/// A long step says this often that it goes on.
const TICK: Duration = Duration::from_secs(20);

/// A part that is built only when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Addon {
    /// `kubectl top` and the metrics that a HorizontalPodAutoscaler reads.
    MetricsServer,
}

/// One Go module of ours and the programs that come out of it.
struct Module {
    folder: &'static str,
    packages: &'static [&'static str],
    /// The programs' names, in the order of `packages`.
    programs: &'static [&'static str],
    /// Linker flags, from the versions that `go list` tells.
    flags: fn(&Path) -> Result<String>,
}

const MODULES: [Module; 7] = [
    Module {
        folder: "kubernetes",
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"],
        flags: kubernetes_flags,
    },
    Module { folder: "coredns", packages: &["."], programs: &["coredns"], flags: strip },
    Module { folder: "etcd", packages: &["."], programs: &["etcd"], flags: strip },
    Module {
        folder: "calico",
        packages: &[
            "github.com/projectcalico/calico/felix/cmd/calico-felix",
            "github.com/projectcalico/calico/cni-plugin/cmd/calico",
        ],
        programs: &["calico-felix", "calico"],
        flags: |_| {
            let variable = "github.com/projectcalico/calico/felix/buildinfo.GitVersion";
            Ok(format!("{STRIP} -X {variable}={CALICO_VERSION} -X main.VERSION={CALICO_VERSION}"))
        },
    },
    Module {
        folder: "localpath",
        packages: &["github.com/rancher/local-path-provisioner"],
        programs: &["local-path-provisioner"],
        flags: |_| Ok(format!("{STRIP} -X main.VERSION={LOCAL_PATH_VERSION}")),
    },
    Module {
        folder: "helm",
        packages: &["helm.sh/helm/v4/cmd/helm"],
        programs: &["helm"],
        flags: |folder| {
            let version = version_of(folder, "helm.sh/helm/v4")?;
            Ok(format!("{STRIP} -X helm.sh/helm/v4/internal/version.version={version}"))
        },
    },
    // What kstatus and Argo CD think of an object: for the cases, not for the cluster.
    Module { folder: "judge", packages: &["."], programs: &["judge"], flags: strip },
];

const METRICS_SERVER: Module = Module {
    folder: "metrics-server",
    packages: &["sigs.k8s.io/metrics-server/cmd/metrics-server"],
    programs: &["metrics-server"],
    flags: strip,
};

/// Makes the cache complete. Does nothing, and needs no compiler, when it is.
///
/// # Errors
/// When a module cannot be built or a package cannot be had.
pub fn build(checkout: &Checkout, with: &[Addon]) -> Result<()> {
    let mut modules: Vec<&Module> = MODULES.iter().collect();
    if with.contains(&Addon::MetricsServer) {
        modules.push(&METRICS_SERVER);
    }
    let bin = checkout.bin();
    let missing: Vec<&Module> = modules.into_iter().filter(|module| !module.is_built(&bin)).collect();
    let unpacked = packages::are_unpacked(&bin, &checkout.cni());
    if missing.is_empty() && unpacked && addons::images_are_made(checkout, with) {
        return Ok(());
    }
    preflight::check_build(checkout.cache())?;
    let _lock = lock()?;
    let scratch = Scratch::make(checkout)?;
    std::fs::create_dir_all(&bin).doing("create", &bin)?;
    if missing.len() == MODULES.len() {
        eprintln!(
            "building the cluster's programs, once: about 13 minutes on 2 cores when nothing is cached\n  into {}",
            checkout.cache().display()
        );
    }
    for module in &missing {
        timed(&format!("build {}", module.programs.join(" ")), || module.build(checkout, &scratch.0))?;
    }
    if !unpacked {
        timed("unpack Debian packages", || packages::unpack(&scratch.0, &bin, &checkout.cni()))?;
    }
    // The runtime looks for all plugins in one folder.
    let plugin = checkout.cni().join("calico");
    if !plugin.exists() {
        std::fs::hard_link(bin.join("calico"), &plugin).doing("link", &plugin)?;
    }
    timed("write images", || addons::make_images(checkout, with))
}

/// Where a program lies in the cache.
///
/// # Errors
/// When there is no such program.
pub fn program(checkout: &Checkout, name: &str) -> Result<PathBuf> {
    let path = checkout.bin().join(name);
    if !name.contains('/') && path.is_file() {
        return Ok(path);
    }
    let known: Vec<&str> = MODULES.iter().flat_map(|module| module.programs.iter().copied()).collect();
    Err(Error::Refused(format!("there is no program {name}; there are: {}", known.join(" "))))
}

/// Two checkouts share the cache: the second waits for the first.
fn lock() -> Result<File> {
    let path = cache_root()?.join("build.lock");
    let file = File::create(&path).doing("create", &path)?;
    if file.try_lock().is_err() {
        eprintln!("another checkout is building into the same cache; waiting for it");
        file.lock().doing("lock", &path)?;
    }
    Ok(file)
}

/// A folder on the cache's file system that goes away, also when the build fails.
struct Scratch(PathBuf);

impl Scratch {
    fn make(checkout: &Checkout) -> Result<Self> {
        let path = checkout.cache().join("scratch");
        // One that a killed build left; nobody else has the lock.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).doing("create", &path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Module {
    fn is_built(&self, bin: &Path) -> bool {
        let data = (self.folder == "calico").then_some("calico-crds.yaml");
        self.programs.iter().copied().chain(data).all(|program| bin.join(program).is_file())
    }

    fn build(&self, checkout: &Checkout, scratch: &Path) -> Result<()> {
        let folder = checkout.modules().join(self.folder);
        let output = scratch.join(self.folder);
        std::fs::create_dir_all(&output).doing("create", &output)?;
        // One program gets its name from us, several get the names of their packages.
        let target = match self.programs {
            [program] => output.join(program),
            _ => PathBuf::from(format!("{}/", output.display())),
        };
        let flags = (self.flags)(&folder)?;
        run(go(&folder).args(["build", "-ldflags", &flags, "-o"]).arg(&target).args(self.packages))?;
        if self.folder == "calico" {
            write_calico_crds(&folder, &output.join("calico-crds.yaml"))?;
        }
        for program in std::fs::read_dir(&output).doing("read", &output)? {
            let program = program.doing("read", &output)?;
            let place = checkout.bin().join(program.file_name());
            std::fs::rename(program.path(), &place).doing("publish", &place)?;
        }
        Ok(())
    }
}

/// The same flags for everybody: with them Go's own build cache serves every checkout.
fn go(folder: &Path) -> Command {
    let mut go = command("go");
    go.current_dir(folder);
    go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly -trimpath -buildvcs=false");
    go
}

fn version_of(folder: &Path, module: &str) -> Result<String> {
    let version = run(go(folder).args(["list", "-m", "-f", "{{.Version}}", module]))?;
    Ok(version.trim().to_string())
}

fn strip(_: &Path) -> Result<String> {
    Ok(STRIP.to_string())
}

/// Without these, `kubectl version` and Helm's `Capabilities` cannot parse the server's version.
fn kubernetes_flags(folder: &Path) -> Result<String> {
    let version = version_of(folder, "k8s.io/kubernetes")?;
    let minor = version.split('.').nth(1).ok_or_else(|| Error::Refused(format!("{version} is not a version")))?;
    let package = "k8s.io/component-base/version";
    Ok(format!(
        "{STRIP} -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} \
         -X {package}.gitCommit=0000000 -X {package}.gitTreeState=clean -X {package}.buildDate=2026-01-01T00:00:00Z \
         -X k8s.io/client-go/pkg/version.gitVersion={version}"
    ))
}

/// Calico's resource definitions lie in its module; nothing is copied into our repository.
fn write_calico_crds(folder: &Path, output: &Path) -> Result<()> {
    let module = run(go(folder).args(["list", "-m", "-f", "{{.Dir}}", "github.com/projectcalico/calico"]))?;
    let folder = Path::new(module.trim()).join("libcalico-go/config/crd");
    let mut files = Vec::new();
    for file in std::fs::read_dir(&folder).doing("read", &folder)? {
        files.push(file.doing("read", &folder)?.path());
    }
    files.sort();
    let mut text = String::new();
    for file in files {
        text.push_str("---\n");
        text.push_str(&std::fs::read_to_string(&file).doing("read", &file)?);
    }
    std::fs::write(output, text).doing("write", output)
}

/// Says what is being done, that it still is, and how long it took.
fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    eprintln!("  {what} ...");
    let (done, still_at_work) = channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            while still_at_work.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                eprintln!("  {what} ... {:.0} s", start.elapsed().as_secs_f64());
            }
        });
        let result = work();
        drop(done);
        result
    });
    if result.is_ok() {
        eprintln!("  {what}: {:.1} s", start.elapsed().as_secs_f64());
    }
    result
}
