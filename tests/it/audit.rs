//! The trail: complete, chained, and closed to the server's own role.

use crate::support::{SENDER, Slice, World, uid};
use ictus::audit::{self, Fault};
use sqlx::{Connection, PgConnection};

/// A trail of three rows.
async fn trail() -> World {
    let world = World::new().await;
    for number in 1..=3 {
        world.send(vec![Slice::new("s", "a", number).bytes()]).await;
    }
    world
}

async fn tamper(world: &World, sql: &'static str) -> Option<Fault> {
    sqlx::raw_sql(sql)
        .execute(&mut world.superuser().await)
        .await
        .unwrap();
    audit::verify(&world.db).await.unwrap().fault
}

#[tokio::test]
async fn a_trail_that_nobody_touched_holds() {
    let world = trail().await;
    let verdict = audit::verify(&world.db).await.unwrap();
    assert_eq!((verdict.rows, verdict.fault), (3, None));
    assert_eq!(
        verdict.hash,
        world.db.audit_of_study(&uid("s")).await.unwrap()[2].hash
    );
}

#[tokio::test]
async fn a_changed_removed_or_cut_row_is_found_at_its_place() {
    let world = trail().await;
    let fault = tamper(
        &world,
        "UPDATE audit SET principal = 'somebody else' WHERE seq = 2",
    )
    .await;
    assert_eq!(fault, Some(Fault::Content(2)));
    let fault = tamper(&world, "DELETE FROM audit WHERE seq = 2").await;
    assert_eq!(
        fault,
        Some(Fault::Gap {
            expected: 2,
            found: 3
        })
    );
    let fault = tamper(&world, "DELETE FROM audit WHERE seq >= 2").await;
    assert_eq!(fault, Some(Fault::End { last: 1, head: 3 }));
}

#[tokio::test]
async fn a_change_in_the_detail_or_the_time_is_found_too() {
    let world = trail().await;
    let fault = tamper(
        &world,
        "UPDATE audit SET at = at + interval '1 microsecond' WHERE seq = 1",
    )
    .await;
    assert_eq!(fault, Some(Fault::Content(1)));
    let world = trail().await;
    let fault = tamper(
        &world,
        "UPDATE audit SET detail = (detail::text || ' ')::json WHERE seq = 3",
    )
    .await;
    assert_eq!(fault, Some(Fault::Content(3)));
}

#[tokio::test]
async fn the_servers_role_can_neither_change_nor_remove_a_row() {
    let world = trail().await;
    let mut connection = PgConnection::connect_with(&world.options).await.unwrap();
    sqlx::raw_sql("SET ROLE ictus_app")
        .execute(&mut connection)
        .await
        .unwrap();
    for sql in [
        "UPDATE audit SET principal = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM audit_head",
        "DELETE FROM instance",
        "UPDATE instance SET archive_key = 'x'",
        "DROP TABLE audit",
    ] {
        let error = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
        let code = error
            .as_database_error()
            .and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error}");
    }
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
}

#[tokio::test]
async fn writers_at_once_leave_no_gap() {
    let world = World::new().await;
    let sends = (0..12).map(|number| {
        world.send(vec![
            Slice::new(&format!("s{number}"), &format!("a{number}"), 1).bytes(),
        ])
    });
    futures::future::join_all(sends).await;
    let verdict = audit::verify(&world.db).await.unwrap();
    assert_eq!((verdict.rows, verdict.fault), (12, None));
}

#[tokio::test]
async fn reading_a_study_is_recorded_once_in_ten_minutes_for_each_reader() {
    let world = trail().await;
    for _ in 0..3 {
        world.db.audit_read("dr-a", &uid("s")).await.unwrap();
    }
    world.db.audit_read("dr-b", &uid("s")).await.unwrap();
    assert_eq!(
        world.count("SELECT count(*) FROM audit WHERE act = 'read'").await,
        2
    );
    let study = uid("s");
    let reads = futures::future::join_all((0..8).map(|_| world.db.audit_read("dr-c", &study))).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(
        world
            .count("SELECT count(*) FROM audit WHERE principal = 'dr-c'")
            .await,
        1
    );
    assert_eq!(audit::verify(&world.db).await.unwrap().fault, None);
}

#[tokio::test]
async fn the_trail_is_handed_out_as_json_lines() {
    let world = trail().await;
    let mut out = Vec::new();
    assert_eq!(audit::export(&world.db, &mut out).await.unwrap(), 3);
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[0]["seq"], &lines[0]["principal"]),
        (&1.into(), &SENDER.into())
    );
    assert_eq!(lines[1]["prev_hash"], lines[0]["hash"]);
    assert_eq!(lines[2]["studies"][0], uid("s").as_str());
}
