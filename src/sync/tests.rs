//! A pass that goes wrong within.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::config::{Place, load};
use crate::state_repo::OpenOptions;

struct Nobody;

impl Watcher for Nobody {
    fn begins(&mut self, _: &Prepared) {}
    fn sees(&mut self, _: Option<&str>, _: &Event) {}
    fn ends(&mut self, _: &Summary) {}
}

/// A Git repository with these job files, each holding a document that no job minds.
fn repository(root: &Path, job_files: &[&str]) {
    let repository = git2::Repository::init(root).unwrap();
    let mut index = repository.index().unwrap();
    for file in job_files {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(
            path,
            r#"{"job_id": 1, "meta": {"file": "/nowhere", "md5": "0cc175b9c0f1b6a831c399e269772661"}, "schema": "a"}"#,
        )
        .unwrap();
        index.add_path(Path::new(file)).unwrap();
    }
    index.write().unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    let author = git2::Signature::now("master", "master@localhost").unwrap();
    repository.commit(Some("HEAD"), &author, &author, "jobs", &tree, &[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_crashes_fails_by_name_and_leaves_the_others_and_the_next_run_alone() {
    let crashing = format!("geoserver/workspaces/{}.json", execute::CRASHES_ONCE);
    let after_it = format!("geoserver/layers/{}.roads.json", execute::CRASHES_ONCE);
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path(), &["geoserver/workspaces/calm.json", &crashing, &after_it]);
    let variables = [("SLAVE_NAME", "slave"), ("SKIP_DB", "true"), ("SKIP_GS", "true"), ("HOOK_ON_FAILURE", "refuse")];
    let env: BTreeMap<String, String> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let settings = load(&env, &Place { env_file: None, working_directory: dir.path().into() }).unwrap().settings;
    let journal = Journal::open(&settings.sync_status_path).unwrap();
    let mut repository = StateRepo::open(OpenOptions::new(dir.path())).await.unwrap();
    let (request, stop) = (Request::default(), CancellationToken::new());
    let mut pass = async || {
        let prepared = prepare(&settings, &mut repository, Some(&journal), &request).await.unwrap();
        run(&settings, &mut repository, &journal, &request, prepared, &mut Nobody, &stop).await.unwrap()
    };

    let first = pass().await;
    let [(job_file, error)] = &first.failed[..] else { panic!("{:?}", first.failed) };
    insta::assert_snapshot!(error.paragraph(), @r"
    Error: geoserver/workspaces/crashes once.json: internal error: the job crashed
      Caused by: as the test wants it
      Hint: this is a fault of borg-slave: report it with this message and what stands before it in the log; other jobs are not affected, and the next run tries again
    ");
    assert_eq!((job_file, first.waiting), (&crashing, 2), "the others end as they would, also what comes after it");
    let record = journal.job(&crashing).unwrap().unwrap();
    assert_eq!(record.state, crate::journal::State::Failed);
    assert!(record.message.unwrap().contains("internal error"));
    assert_eq!(journal.cursor().unwrap(), None);

    let second = pass().await;
    assert!(second.failed.is_empty() && second.waiting == 3, "{second:?}");
    assert!(journal.cursor().unwrap().is_some());
}
