//! Files that go to another machine.

use super::*;

const ODD: &str = "slave 1/it's $(a); `b` *?/öß 道/-n \"röads\" \\x.png";

impl Place {
    /// The directory that files are sent from, with these in it.
    fn previews(&self, files: &[(&str, &str)]) -> PathBuf {
        let root = self.dir.path().join("previews here");
        for (name, content) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    fn destination(&self, sshd: &Sshd, dir: &str) -> Destination {
        Destination::parse(&sshd.location(self.dir.path().join(dir))).unwrap()
    }

    fn sent(&self, dir: &str, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(dir).join(name)).unwrap()
    }
}

#[tokio::test]
async fn files_arrive_under_their_path_over_the_connection_that_is_there() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let root = place.previews(&[(ODD, "first"), ("s/c/w/b.jpg", "b"), ("s/c/w/c.png", "c")]);
    let sum = place.put("a.db", "a");
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    transfer.fetch(request(&sshd.location(place.master("a.db")), "a", Some(sum))).await.unwrap();
    // Neither the directory nor what it lies in is there.
    let to = place.destination(&sshd, "on master/it's $(deep)/previews/");
    transfer.send(&root, Path::new(ODD), &to).await.unwrap();
    assert_eq!(place.sent("on master/it's $(deep)/previews", ODD), "first");
    // A new content takes the place of the old one.
    std::fs::write(root.join(ODD), "the second").unwrap();
    transfer.send(&root, Path::new(ODD), &to).await.unwrap();
    transfer.send(&root, Path::new("s/c/w/b.jpg"), &to).await.unwrap();
    assert_eq!(place.sent("on master/it's $(deep)/previews", ODD), "the second");
    assert_eq!(place.sent("on master/it's $(deep)/previews", "s/c/w/b.jpg"), "b");
    // Many at once.
    let (first, second) =
        tokio::join!(transfer.send(&root, Path::new("s/c/w/c.png"), &to), transfer.send(&root, Path::new(ODD), &to));
    first.and(second).unwrap();
    assert_eq!(sshd.connections(), 1);
    let names = std::fs::read_dir(place.dir.path().join("on master/it's $(deep)/previews/s/c/w")).unwrap().count();
    assert_eq!(names, 2, "nothing else is left there");
}

#[tokio::test]
async fn a_plain_directory_is_written_directly() {
    let place = Place::new();
    let root = place.previews(&[(ODD, "first")]);
    let transfer = Transfer::new(place.options(vec!["/nonexistent/ssh".into()])).unwrap();
    let to = Destination::parse(&format!("{}/", place.dir.path().join("shared").display())).unwrap();
    transfer.send(&root, Path::new(ODD), &to).await.unwrap();
    assert_eq!(place.sent("shared", ODD), "first");
    // The directory of the previews itself, shared with the master.
    let same = Destination::parse(root.to_str().unwrap()).unwrap();
    transfer.send(&root, Path::new(ODD), &same).await.unwrap();
    assert_eq!(std::fs::read_to_string(root.join(ODD)).unwrap(), "first");
    let error = transfer.send(&root, Path::new("../x"), &to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bug);
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_apart() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let root = place.previews(&[("s/c/w/a.png", "a")]);
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let file = Path::new("s/c/w/a.png");
    std::fs::write(place.dir.path().join("file"), "").unwrap();

    let missing = transfer.send(&root, Path::new("s/c/w/none.png"), &place.destination(&sshd, "to")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Missing, "{}", missing.paragraph());
    for dir in ["file", "file/below", "file/far/below"] {
        let error = transfer.send(&root, file, &place.destination(&sshd, dir)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{}", error.paragraph());
        assert!(error.subject_text().unwrap().contains("a.png to "), "{}", error.paragraph());
    }
    // Nobody may write in /proc, whoever runs the tests.
    let to = Destination::parse(&sshd.location("/proc/previews")).unwrap();
    let error = transfer.send(&root, file, &to).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Denied), "{}", error.paragraph());
    assert_eq!(sshd.connections(), 1);
}

#[tokio::test]
async fn a_refused_key_and_a_host_that_is_down_are_explained() {
    let (place, sshd) = (Place::new(), Sshd::start_with(Knobs { refuse_keys: true, ..Knobs::default() }).await);
    let root = place.previews(&[("s/c/w/a.png", "a")]);
    let file = Path::new("s/c/w/a.png");
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let error = transfer.send(&root, file, &place.destination(&sshd, "to")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("authorized_keys"), "{}", error.paragraph());

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ssh = ["ssh", "-Fnone", "-p", &port.to_string()].map(str::to_owned).to_vec();
    let options = place.options(ssh);
    let transfer = Transfer::new(options).unwrap();
    let error = transfer.send(&root, file, &Destination::parse("borg@127.0.0.1:/x").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.paragraph());
    assert_eq!(error.subject_text(), Some("borg@127.0.0.1"));
    assert!(error.one_line().contains("Connection refused"), "{}", error.paragraph());
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_anew() {
    let (place, sshd) = (Place::new(), Sshd::start().await);
    let root = place.previews(&[("s/c/w/a.png", "a")]);
    // The key exchange takes some three thousand bytes; it breaks somewhere behind the login.
    let proxy = Proxy::start(sshd.port(), [Fate::Cut(4_000)]).await;
    let transfer = Transfer::new(place.options(sshd.ssh_command_via(&proxy))).unwrap();
    transfer.send(&root, Path::new("s/c/w/a.png"), &place.destination(&sshd, "to")).await.unwrap();
    assert_eq!(place.sent("to", "s/c/w/a.png"), "a");
    assert_eq!(sshd.connections(), 2);
}

#[tokio::test]
async fn without_rsync_there_it_is_said() {
    let (place, sshd) = (Place::new(), Sshd::start_with(Knobs { without_rsync: true, ..Knobs::default() }).await);
    let root = place.previews(&[("s/c/w/a.png", "a")]);
    let transfer = Transfer::new(place.options(sshd.ssh_command())).unwrap();
    let error = transfer.send(&root, Path::new("s/c/w/a.png"), &place.destination(&sshd, "to")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Process, "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("install rsync"), "{}", error.paragraph());
}
