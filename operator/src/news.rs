//! What the watch of a kind that has a controller tells it: objects whose spec, annotations or finalizers are others than
//! when it was told last, and after each list all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt};
use kube::Resource;
use kube_runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};

use crate::watches::Event;

/// How often a kind was listed.
#[derive(Clone, Debug, Default)]
pub struct Lists(Arc<AtomicU64>);

/// Every object that was made, changed or deleted, of a watch that fills a store. The objects of a list are told when the
/// store has them: who is looked at before is not found, and forgotten by its controller.
pub fn touched<K, S>(stream: S, lists: &Lists) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K, S>
where
    K: Send + 'static,
    S: Stream<Item = Event<K>> + Send,
{
    let (lists, mut listed) = (lists.clone(), Vec::new());
    let told = stream.map(move |event| {
        let told = match event {
            Err(error) => vec![Err(error)],
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(Ok(object));
                Vec::new()
            }
            Ok(watcher::Event::InitDone) => {
                lists.0.fetch_add(1, Ordering::Relaxed);
                std::mem::take(&mut listed)
            }
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => vec![Ok(object)],
        };
        futures::stream::iter(told)
    });
    told.flatten()
}

/// Those of them that their controller has to look at. Statuses that the operator writes itself are no news. A list may be
/// older than what was there, or lack an object, so what comes after it is news, however well it was known before.
pub fn only<K, S>(touched: S, lists: Lists) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K, S>
where
    K: Resource + Send + 'static,
    S: Stream<Item = Result<K, watcher::Error>> + Send,
{
    let is_news = predicates::generation.combine(predicates::annotations).combine(predicates::finalizers);
    let since = move |_: &K| Some(lists.0.load(Ordering::Relaxed));
    touched.predicate_filter(is_news.combine(since), PredicateConfig::default())
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube_runtime::reflector::store::Writer;
    use kube_runtime::reflector::{ObjectRef, reflector};
    use kube_runtime::watcher::Event::{Apply, Init, InitApply, InitDone};

    use super::*;

    fn object(name: &str, generation: i64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_string());
        object.metadata.generation = Some(generation);
        object
    }

    /// Who is told, in which generation. The store has each of them then.
    fn told(events: Vec<watcher::Event<ConfigMap>>) -> Vec<(String, i64)> {
        let writer = Writer::<ConfigMap>::default();
        let store = writer.as_reader();
        let lists = Lists::default();
        let touched = touched(reflector(writer, futures::stream::iter(events).map(Ok)), &lists);
        let stream = only(touched, lists);
        let looked = stream.map(|object| {
            let object = object.expect("no failure");
            let name = object.name_any();
            assert!(store.get(&ObjectRef::new(&name)).is_some(), "{name} is told and cannot be found");
            (name, object.metadata.generation.unwrap_or(0))
        });
        block_on(looked.collect())
    }

    fn named(names: &[(&str, i64)]) -> Vec<(String, i64)> {
        names.iter().map(|(name, generation)| ((*name).to_string(), *generation)).collect()
    }

    #[test]
    fn a_change_of_the_spec_is_news_and_one_of_the_status_is_none() {
        let events = vec![Init, InitDone, Apply(object("a", 1)), Apply(object("a", 1)), Apply(object("a", 2))];
        assert_eq!(told(events), named(&[("a", 1), ("a", 2)]));
    }

    #[test]
    fn an_object_that_a_list_lacks_is_news_when_it_comes_again() {
        let again = Apply(object("a", 1));
        let events = vec![Init, InitApply(object("a", 1)), InitDone, again.clone(), Init, InitDone, again];
        assert_eq!(told(events), named(&[("a", 1), ("a", 1)]));
    }

    #[test]
    fn objects_of_a_list_are_told_when_all_of_it_is_there_and_an_unfinished_one_counts_for_nothing() {
        let (a, b) = (object("a", 1), object("b", 1));
        let events =
            vec![Init, InitApply(b.clone()), Init, InitApply(a.clone()), InitApply(b), InitDone, Apply(a.clone())];
        assert_eq!(told(events), named(&[("a", 1), ("b", 1)]));
        assert_eq!(told(vec![Init, InitDone, Init, InitApply(a), InitDone]), named(&[("a", 1)]));
    }
}
