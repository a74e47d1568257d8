//! Tries to change leaves that nobody may change; the API server itself refuses it, without an operator.

use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::Stage;
use crate::leaves::{LeafCase, Moment, Shall};

impl Stage {
    /// Tries to set, change and unset a leaf that the API server keeps, on objects of this name.
    ///
    /// # Errors
    /// When a try is not refused, or for another reason.
    pub async fn keep(&self, namespace: &str, name: &str, case: &LeafCase) -> Result<()> {
        match case.shall {
            Shall::BeKept(message) => {
                if let Some(unset) = &case.unset {
                    let object = format!("{name}-without");
                    self.try_to(namespace, &object, unset).await?.context("without the leaf")?;
                    self.refused(namespace, &object, &case.set, Moment::Set, message).await?;
                }
                let object = format!("{name}-with");
                self.try_to(namespace, &object, &case.set).await?.context("with the leaf")?;
                self.refused(namespace, &object, &case.change, Moment::Change, message).await?;
                match &case.unset {
                    Some(unset) => self.refused(namespace, &object, unset, Moment::Unset, message).await,
                    None => Ok(()),
                }
            }
            Shall::BeRefused(message) => {
                let unset = case.unset.as_ref().context("a leaf that is refused is optional")?;
                self.try_to(namespace, name, unset).await?.context("without the leaf")?;
                self.refused(namespace, name, &case.set, Moment::Set, message).await?;
                self.refused(namespace, &format!("{name}-new"), &case.set, Moment::Set, message).await
            }
            Shall::BeFollowed { .. } => bail!("{} is followed by children", case.leaf),
        }
    }

    async fn refused(&self, namespace: &str, name: &str, object: &Value, at: Moment, message: &str) -> Result<()> {
        match self.try_to(namespace, name, object).await? {
            Ok(()) => bail!("@{}: it is not refused", at.as_str()),
            Err(error) => {
                let said = error.to_string();
                ensure!(said.contains(message), "@{}: {message:?} was expected: {said}", at.as_str());
                Ok(())
            }
        }
    }

    /// Applies an object under another name; the inner answer is that of the API server.
    async fn try_to(&self, namespace: &str, name: &str, object: &Value) -> Result<Result<(), kube::Error>> {
        let mut object = object.clone();
        let kind = object.get("kind").and_then(Value::as_str).context("an object has a kind")?.to_string();
        let metadata = object.get_mut("metadata").context("an object has metadata")?;
        *metadata = json!({ "name": name });
        let api: Api<DynamicObject> = crate::network::kind_api(self.client.clone(), namespace, &kind);
        let params = PatchParams::apply("a-person").force();
        Ok(api.patch(name, &params, &Patch::Apply(&object)).await.map(drop))
    }
}
