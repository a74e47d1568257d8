//! `Accounts`: reads the ledger.

use node_api::{
    fields,
    proto::{self, accounts_server::Accounts},
};
use node_core::ledger::StateKey;
use tonic::{Request, Response, Status};

use crate::shell::{
    handle::Handle,
    state::{AccountView, Prove},
};

/// The service.
#[derive(Clone, Debug)]
pub struct AccountsService {
    handle: Handle,
}

impl AccountsService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl Accounts for AccountsService {
    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        let proto::GetAccountRequest { account, prove } = request.into_inner();
        let id = fields::account("account", &account).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let prove = if prove { Prove::Yes } else { Prove::No };
        let view = self.handle.chain()?.state.account(id, prove).await;
        let view = view.map_err(|error| Status::internal(error.to_string()))?;
        let AccountView { height, account: state, exists, proof } = view;
        let proof = proof.map(|proof| proto::StateProof {
            height: proof.height.get(),
            state_root: proof.roots.state_root.as_bytes().to_vec(),
            key: StateKey::account(&id).as_bytes().to_vec(),
            value: proof.value.unwrap_or_default(),
            proof: proof.proof,
        });
        Ok(Response::new(proto::GetAccountResponse {
            account,
            exists,
            nonce: state.nonce.get(),
            balance: state.balance.get(),
            height: height.get(),
            proof,
        }))
    }
}
