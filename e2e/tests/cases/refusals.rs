//! Every manifest in `examples/invalid/` is refused by the API server, or stalls with a reason and makes no child.

use std::path::PathBuf;

use althing_e2e::environment::Environment;
use althing_e2e::network::{Judged, Network, eventually};
use anyhow::{Context, Result, bail, ensure};

use crate::Scene;

const MANIFESTS_MIN: usize = 25;

/// What a manifest says about itself in its first line.
enum Expected {
    /// `# expect: refused: text of the answer`
    Refused(String),
    /// `# expect: stalled: Reason`
    Stalled(String),
}

/// Applies them all, one after the other.
pub async fn bad_resources_are_refused_or_stalled(scene: &Scene) -> Result<()> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(scene.environment.root.join("examples/invalid"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    ensure!(paths.len() >= MANIFESTS_MIN, "only {} bad manifests", paths.len());
    let mut wrong = vec![];
    for path in &paths {
        if let Err(error) = check(scene, path).await {
            wrong.push(format!("{}: {error:#}", path.display()));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
    Ok(())
}

async fn check(scene: &Scene, path: &PathBuf) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let expected = expectation(&text)?;
    let documents: Vec<&str> = text.split("\n---\n").collect();
    let (last, before) = documents.split_last().context("a manifest has a document")?;
    for document in before {
        apply(&scene.environment, &scene.namespace, document).await?.map_err(anyhow::Error::msg)?;
    }
    if text.lines().any(|line| line == "# needs: running") {
        running(scene).await?;
    }
    let answer = apply(&scene.environment, &scene.namespace, last).await?;
    let outcome = match (&expected, answer) {
        (Expected::Refused(part), Err(said)) if said.contains(part) => Ok(()),
        (Expected::Refused(part), Err(said)) => Err(anyhow::anyhow!("refused, but without {part:?}: {said}")),
        (Expected::Refused(_), Ok(())) => Err(anyhow::anyhow!("it was accepted")),
        (Expected::Stalled(_), Err(said)) => Err(anyhow::anyhow!("it was refused: {said}")),
        (Expected::Stalled(reason), Ok(())) => stalled(scene, reason).await,
    };
    clear(scene).await?;
    outcome
}

fn expectation(text: &str) -> Result<Expected> {
    let line = text.lines().next().unwrap_or_default();
    if let Some(part) = line.strip_prefix("# expect: refused: ") {
        return Ok(Expected::Refused(part.trim().to_string()));
    }
    if let Some(reason) = line.strip_prefix("# expect: stalled: ") {
        return Ok(Expected::Stalled(reason.trim().to_string()));
    }
    bail!("the first line says nothing to expect")
}

/// Applies; the inner error is what the API server said.
async fn apply(environment: &Environment, namespace: &str, manifest: &str) -> Result<Result<(), String>> {
    let arguments = ["--namespace", namespace, "apply", "-f", "-"];
    let output = environment.kubectl_call(&arguments).input(manifest).output().await?;
    Ok(if output.code == 0 { Ok(()) } else { Err(output.stderr) })
}

/// Every network of the namespace makes blocks.
async fn running(scene: &Scene) -> Result<()> {
    let arguments =
        ["--namespace", scene.namespace.as_str(), "wait", "bcn", "--all", "--for=condition=Available", "--timeout=90s"];
    scene.environment.kubectl_call(&arguments).within(120).stdout().await?;
    Ok(())
}

/// Some object says `Stalled=True` with this reason.
async fn stalled(scene: &Scene, reason: &str) -> Result<()> {
    let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} \
                {.status.conditions[?(@.type==\"Stalled\")].status} \
                {.status.conditions[?(@.type==\"Stalled\")].reason}{\"\\n\"}{end}";
    let arguments = ["--namespace", scene.namespace.as_str(), "get", "bcn,cgrp,vnode", "-o", path];
    eventually(&format!("something is Stalled with {reason}"), 40, || async {
        let listed = scene.environment.kubectl(&arguments).await?;
        let wanted = format!("True {reason}");
        let said: Vec<&str> = listed.lines().map(str::trim).collect();
        ensure!(said.iter().any(|line| line.ends_with(&wanted)), "they say {said:?}");
        let names = ["--namespace", scene.namespace.as_str(), "get", "pods", "-o", "name"];
        let pods = scene.environment.kubectl(&names).await?;
        ensure!(!pods.contains("-0-0") || said.len() > 1, "a pod was made: {pods}");
        Ok(())
    })
    .await?;
    tools_say_failed(scene).await
}

/// What is stalled is failed for kstatus and degraded for Argo CD.
async fn tools_say_failed(scene: &Scene) -> Result<()> {
    let network = Network::new(&scene.environment, &scene.client, &scene.namespace, "any", "main");
    // An object that was changed a moment ago is in progress until its status is of the new generation.
    eventually("tools say failed of what is stalled", 20, || async {
        let mut judged = 0;
        for Judged { name, stalled, verdict } in network.verdicts().await? {
            let failed = (verdict.kstatus.as_str(), verdict.argocd.as_str()) == ("Failed", "Degraded");
            ensure!(failed == stalled, "{name}: {verdict:?}");
            judged += usize::from(stalled);
        }
        ensure!(judged > 0, "nothing was stalled any more");
        Ok(())
    })
    .await
}

/// Leaves the namespace as the next manifest expects it: empty, with nothing retained.
async fn clear(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace.as_str();
    let ours = ["--namespace", namespace, "delete", "bcn,cgrp,vnode", "--all", "--timeout=60s"];
    scene.environment.kubectl_call(&ours).within(90).stdout().await?;
    let rest = [
        "--namespace",
        namespace,
        "delete",
        "resourcequotas,secrets,pvc,cm,services,statefulsets",
        "--all",
        "--timeout=60s",
    ];
    scene.environment.kubectl_call(&rest).within(90).stdout().await?;
    Ok(())
}
