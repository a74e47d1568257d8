//! What a node may be told about its claim, its volume and the former owner of its key: decided from live reads only.

/// A pod as it was read live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRead {
    /// UID.
    pub uid: String,
    /// It has a deletionTimestamp.
    pub is_deleting: bool,
    /// Name of the claim that holds the node's data.
    pub claim: Option<String>,
    /// The state of the node's container.
    pub container: ContainerRead,
}

/// The state of the node's container as the kubelet reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRead {
    /// Reported as terminated by the kubelet that ran it.
    Terminated,
    /// Reported as terminated with a reason that says that nobody knows.
    Lost,
    /// Running, waiting or not reported.
    NotTerminated,
}

/// A claim as it was read live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRead {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Only one machine or pod may mount it.
    pub is_single_writer: bool,
}

/// A volume as it was read live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeRead {
    /// On the disk of one machine.
    NodeLocal,
    /// Files on a server that many machines may write.
    SharedFiles,
    /// Anything else.
    Other,
}

/// Everything that was read live for one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The node's pod.
    pub pod: PodRead,
    /// The node's claim.
    pub claim: ClaimRead,
    /// The volume behind it.
    pub volume: VolumeRead,
    /// The user has declared that the storage fences.
    pub is_declared_fencing: bool,
    /// Pods of this node, by label, whatever they are called.
    pub pods: Vec<PodRead>,
}

/// What the node asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Pod UID of the process that asks.
    pub own_pod_uid: String,
    /// Pod UID of the former owner; none when nobody stands in the way.
    pub owner_pod_uid: Option<String>,
    /// A grant would help it.
    pub is_asking: bool,
    /// It does not know its claim yet.
    pub lacks_claim: bool,
}

/// Kind of a volume, as a grant says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// On one machine only.
    NodeLocal,
    /// The storage fences.
    Fencing,
    /// No promise.
    Other,
}

/// What is known of the end of the former owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing.
    Unknown,
    /// The kubelet says that it has terminated.
    TerminatedByKubelet,
    /// The storage cut it off.
    FencingStorage,
    /// The lock on the node-local volume decides.
    NodeLocal,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// For this pod only.
    pub pod_uid: String,
    /// Its claim.
    pub claim_uid: String,
    /// Kind of the volume behind it.
    pub volume: Volume,
    /// What is known of the owner that was asked about.
    pub ended: Ended,
}

/// The grant that answers this question, if there is anything to say.
pub fn decide(question: &Question, live: &Live) -> Option<Grant> {
    if !question.is_asking && !question.lacks_claim {
        return None;
    }
    let is_its_pod = live.pod.uid == question.own_pod_uid && !live.pod.is_deleting;
    let is_its_claim = live.pod.claim.as_deref() == Some(live.claim.name.as_str());
    if !is_its_pod || !is_its_claim {
        return None;
    }
    let volume = volume(live);
    let ended = question.owner_pod_uid.as_deref().map_or(Ended::Unknown, |owner| match volume {
        Volume::NodeLocal => Ended::NodeLocal,
        Volume::Fencing => Ended::FencingStorage,
        Volume::Other if has_terminated(owner, live) => Ended::TerminatedByKubelet,
        Volume::Other => Ended::Unknown,
    });
    let says_nothing_new = question.owner_pod_uid.is_some() && ended == Ended::Unknown && !question.lacks_claim;
    (!says_nothing_new).then(|| Grant {
        pod_uid: live.pod.uid.clone(),
        claim_uid: live.claim.uid.clone(),
        volume,
        ended,
    })
}

fn volume(live: &Live) -> Volume {
    match live.volume {
        VolumeRead::NodeLocal => Volume::NodeLocal,
        VolumeRead::Other if live.is_declared_fencing && live.claim.is_single_writer => Volume::Fencing,
        VolumeRead::SharedFiles | VolumeRead::Other => Volume::Other,
    }
}

/// Absence proves nothing, and neither does a phase: only the kubelet that ran the container does.
fn has_terminated(owner: &str, live: &Live) -> bool {
    live.pods.iter().any(|pod| pod.uid == owner && pod.is_deleting && pod.container == ContainerRead::Terminated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> PodRead {
        PodRead {
            uid: uid.to_string(),
            is_deleting: false,
            claim: Some("data".to_string()),
            container: ContainerRead::NotTerminated,
        }
    }

    fn live(volume: VolumeRead) -> Live {
        let claim = ClaimRead { name: "data".to_string(), uid: "c".to_string(), is_single_writer: true };
        Live { pod: pod("new"), claim, volume, is_declared_fencing: false, pods: vec![pod("new")] }
    }

    fn question(owner: Option<&str>) -> Question {
        Question {
            own_pod_uid: "new".to_string(),
            owner_pod_uid: owner.map(str::to_string),
            is_asking: true,
            lacks_claim: false,
        }
    }

    fn ended(question: &Question, live: &Live) -> Option<Ended> {
        decide(question, live).map(|grant| grant.ended)
    }

    #[test]
    fn a_node_that_asks_nothing_is_told_nothing() {
        let quiet = Question { is_asking: false, ..question(Some("old")) };
        assert_eq!(decide(&quiet, &live(VolumeRead::NodeLocal)), None);
    }

    #[test]
    fn a_first_start_learns_its_claim() {
        let first = Question { lacks_claim: true, ..question(None) };
        let grant = decide(&first, &live(VolumeRead::Other)).expect("a grant");
        assert_eq!((grant.claim_uid.as_str(), grant.volume, grant.ended), ("c", Volume::Other, Ended::Unknown));
    }

    #[test]
    fn another_pod_or_a_dying_one_gets_nothing() {
        let mut other = live(VolumeRead::NodeLocal);
        other.pod.uid = "newer".to_string();
        assert_eq!(decide(&question(None), &other), None);
        let mut dying = live(VolumeRead::NodeLocal);
        dying.pod.is_deleting = true;
        assert_eq!(decide(&question(None), &dying), None);
        let mut elsewhere = live(VolumeRead::NodeLocal);
        elsewhere.pod.claim = Some("copy".to_string());
        assert_eq!(decide(&question(None), &elsewhere), None);
    }

    #[test]
    fn the_kind_of_volume_decides_about_the_former_owner() {
        assert_eq!(ended(&question(Some("old")), &live(VolumeRead::NodeLocal)), Some(Ended::NodeLocal));
        assert_eq!(ended(&question(Some("old")), &live(VolumeRead::Other)), None);
        let mut declared = live(VolumeRead::Other);
        declared.is_declared_fencing = true;
        assert_eq!(ended(&question(Some("old")), &declared), Some(Ended::FencingStorage));
        declared.claim.is_single_writer = false;
        assert_eq!(ended(&question(Some("old")), &declared), None);
        let mut files = live(VolumeRead::SharedFiles);
        files.is_declared_fencing = true;
        assert_eq!(ended(&question(Some("old")), &files), None);
    }

    #[test]
    fn only_a_deleted_pod_whose_container_the_kubelet_saw_end_has_ended() {
        let table = [
            (true, ContainerRead::Terminated, Some(Ended::TerminatedByKubelet)),
            (false, ContainerRead::Terminated, None),
            (true, ContainerRead::Lost, None),
            (true, ContainerRead::NotTerminated, None),
        ];
        for (is_deleting, container, expected) in table {
            let mut read = live(VolumeRead::Other);
            read.pods.push(PodRead { is_deleting, container, ..pod("old") });
            assert_eq!(ended(&question(Some("old")), &read), expected, "{is_deleting} {container:?}");
        }
    }
}
