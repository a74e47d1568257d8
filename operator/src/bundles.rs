//! Certificate authorities of other members, read from the ConfigMaps that a spec names.

use std::time::Instant;

use althing_crds::peers::TrustedAuthority;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use node_api::pki;

use crate::context::Context;
use crate::error::Error;
use crate::references::Missing;

/// Most bytes of all bundles of one node together: they go into one Secret.
const BYTES_MAX: usize = 256 << 10;

/// A bundle that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// What is wrong with it.
    pub why: String,
}

impl From<Unusable> for Missing {
    fn from(unusable: Unusable) -> Self {
        Self::TrustedAuthority(unusable.config_map, unusable.why)
    }
}

/// All bundles as one text, empty when none is named.
pub async fn read(
    context: &Context,
    namespace: &str,
    named: &[TrustedAuthority],
) -> Result<Result<String, Unusable>, Error> {
    let mut all = String::new();
    for TrustedAuthority { config_map, key } in named {
        let text = match entry(context, namespace, config_map, key).await? {
            Ok(text) => text,
            Err(why) => return Ok(Err(Unusable { config_map: config_map.clone(), why })),
        };
        all.push_str(text.trim());
        all.push('\n');
        if all.len() > BYTES_MAX {
            let why = format!("all bundles together have more than {BYTES_MAX} bytes");
            return Ok(Err(Unusable { config_map: config_map.clone(), why }));
        }
    }
    Ok(Ok(all))
}

/// One entry: as it was a short while ago, else live.
async fn entry(context: &Context, namespace: &str, name: &str, key: &str) -> Result<Result<String, String>, Error> {
    let memory = &context.shared.memories.bundles;
    let entry = format!("{name}/{key}");
    if let Some(known) = memory.get(namespace, &entry) {
        return Ok(Ok(known));
    }
    let at = Instant::now();
    let api: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(Error::read(format!("ConfigMap {namespace}/{name}")))?;
    let Some(map) = found else { return Ok(Err("it does not exist".to_string())) };
    let Some(text) = map.data.and_then(|mut data| data.remove(key)) else {
        return Ok(Err(format!("it has no entry {key}")));
    };
    Ok(match check(&text) {
        Ok(()) => {
            memory.put(namespace, &entry, at, text.clone());
            Ok(text)
        }
        Err(why) => Err(format!("{key}: {why}")),
    })
}

fn check(text: &str) -> Result<(), String> {
    if text.contains("PRIVATE KEY") {
        return Err("it holds a private key; only certificates belong there".to_string());
    }
    pki::check_authorities(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::certificates::new_authority;

    #[test]
    fn a_bundle_holds_certificates_and_no_key() {
        let authority = new_authority("demo", 1_800_000_000).expect("an authority");
        assert_eq!(check(authority.certificate_pem()), Ok(()));
        let both = format!("{}{}", authority.certificate_pem(), authority.key_pem());
        assert!(check(&both).expect_err("refused").contains("private key"));
        assert!(check("no certificate").is_err());
    }
}
