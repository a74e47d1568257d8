//! Tries to change leaves that nobody may change; the API server itself refuses it, without an operator.

use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::Stage;
use crate::leaves::{LeafCase, Moment, Shall};

/// Where an object is tried.
struct Place<'a> {
    namespace: &'a str,
    name: String,
}

impl Stage {
    /// Tries to set, change and unset a leaf that the API server keeps, on objects of this name.
    ///
    /// # Errors
    /// When a try is not refused, or for another reason.
    pub async fn keep(&self, namespace: &str, name: &str, case: &LeafCase) -> Result<()> {
        match case.shall {
            Shall::BeKept(message) => {
                if let Some(unset) = &case.unset {
                    let without = Place { namespace, name: format!("{name}-without") };
                    self.try_to(&without, unset).await?.context("without the leaf")?;
                    self.refused(&without, &case.set, Moment::Set, message).await?;
                }
                let with = Place { namespace, name: format!("{name}-with") };
                self.try_to(&with, &case.set).await?.context("with the leaf")?;
                self.refused(&with, &case.change, Moment::Change, message).await?;
                match &case.unset {
                    Some(unset) => self.refused(&with, unset, Moment::Unset, message).await,
                    None => Ok(()),
                }
            }
            Shall::BeRefused(message) => {
                let unset = case.unset.as_ref().context("a leaf that is refused is optional")?;
                let without = Place { namespace, name: name.to_string() };
                self.try_to(&without, unset).await?.context("without the leaf")?;
                self.refused(&without, &case.set, Moment::Set, message).await?;
                let new = Place { namespace, name: format!("{name}-new") };
                self.refused(&new, &case.set, Moment::Set, message).await
            }
            Shall::BeFollowed { .. } => bail!("{} is followed by children", case.leaf),
        }
    }

    async fn refused(&self, place: &Place<'_>, object: &Value, at: Moment, message: &str) -> Result<()> {
        match self.try_to(place, object).await? {
            Ok(()) => bail!("@{}: it is not refused", at.as_str()),
            Err(error) => {
                let said = error.to_string();
                ensure!(said.contains(message), "@{}: {message:?} was expected: {said}", at.as_str());
                Ok(())
            }
        }
    }

    /// Applies an object under another name; the inner answer is that of the API server.
    async fn try_to(&self, place: &Place<'_>, object: &Value) -> Result<Result<(), kube::Error>> {
        let mut object = object.clone();
        let kind = object.get("kind").and_then(Value::as_str).context("an object has a kind")?.to_string();
        let metadata = object.get_mut("metadata").context("an object has metadata")?;
        *metadata = json!({ "name": place.name });
        let api: Api<DynamicObject> = crate::network::kind_api(self.client.clone(), place.namespace, &kind);
        let params = PatchParams::apply("a-person").force();
        Ok(api.patch(&place.name, &params, &Patch::Apply(&object)).await.map(drop))
    }
}
