"""Schemas that teams have, configured in `notifier.toml`, from the commands to the socket."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.worked import worked
from tests.services import run

CHAT = worked("A chat: soft deletions, keys of several columns, times without a zone")
MEMBERS = """
    INSERT INTO members VALUES (1, 7, 'ada', NULL, true), (2, 7, 'bob', NULL, true), (3, 7, 'eve', now(), false)
"""

BOOKINGS = worked("Bookings of teams and of users")
MEMBERSHIPS = """
    INSERT INTO "Membership" VALUES (1, 3, 1, true), (2, 3, 2, false), (3, 3, 4, true);
    INSERT INTO "EventType" VALUES (1, 3, 30)
"""


DESK = worked("A support desk: companies along foreign keys")
DESK_ROWS = """
    INSERT INTO accounts VALUES (1, 'a'), (2, 'b');
    INSERT INTO account_users VALUES (1, 1, 11), (2, 2, 12);
    INSERT INTO inboxes VALUES (1, 1), (2, 2);
    INSERT INTO conversations VALUES (1, 1, 'open'), (2, 2, 'open')
"""


async def test_companies_along_foreign_keys_reach_the_socket(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(f"{DESK.sql}; {DESK_ROWS}")
    (tmp_path / "notifier.toml").write_text(DESK.toml)
    status, output = await run(tmp_path, "migrate", database_url=database.dsn)
    assert status == 0, output
    service = await serve(database)
    status, output = await run(tmp_path, "check", database_url=database.dsn, jwt_secret="x" * 40)
    assert status == 0, output
    ada, bob = await connect(service, "11", "1"), await connect(service, "12", "2")

    await database.execute("INSERT INTO messages VALUES (1, 1, 'hi'), (2, 2, 'ho')")
    created = await ada.expect("MessageCreated")
    assert created["Data"] == {
        "MessageId": 1,
        "CompanyId": 1,
        "ConversationId": 1,
        "Content": "hi",
        "Deleted": False,
    }
    assert (await bob.expect("MessageCreated"))["Data"]["MessageId"] == 2
    await database.execute("INSERT INTO attachments VALUES (1, 1, 'a.png')")
    assert (await ada.expect("AttachmentCreated"))["Data"]["CompanyId"] == 1
    await database.execute("UPDATE conversations SET inbox_id = 2 WHERE id = 1")
    await ada.expect("ConversationDeleted")
    assert (await ada.expect("Resync"))["Data"]["Reason"] == "bulk"
    await bob.expect("ConversationCreated")
    await bob.expect("Resync")
    await database.execute("UPDATE attachments SET file_name = 'b.png'")
    assert (await bob.expect("AttachmentUpdated"))["Data"]["CompanyId"] == 2
    await database.execute("DELETE FROM inboxes WHERE id = 2")
    for kind in ("Conversation", "Conversation", "Message", "Message", "Attachment"):
        await bob.expect(f"{kind}Deleted")
    await ada.quiet()
    await bob.quiet()


async def test_soft_deletions_and_keys_of_several_columns_reach_the_socket(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(f"{CHAT.sql}; {MEMBERS}")
    (tmp_path / "notifier.toml").write_text(CHAT.toml)
    status, output = await run(tmp_path, "migrate", database_url=database.dsn)
    assert status == 0, output
    service = await serve(database)
    status, output = await run(tmp_path, "check", database_url=database.dsn, jwt_secret="x" * 40)
    assert status == 0, output
    ada, bob = [await connect(service, user, "7") for user in ("ada", "bob")]
    eve = await connect(service, "eve")
    assert not (await eve.set_company("7"))["Success"], "she has left"
    assert not (await ada.set_company("07"))["Success"]

    await database.execute("INSERT INTO posts VALUES (1, 7, 'hi', '2026-06-01 10:00', false)")
    created = await bob.expect("PostCreated")
    assert created["Data"]["Written"] == "2026-06-01T10:00:00+00:00"
    await database.execute("INSERT INTO reactions VALUES (1, 'wave', 7)")
    reaction = await bob.expect("ReactionCreated")
    assert reaction["Data"]["ReactionId"] == [1, "wave"]
    assert {"Post": 1, "Emoji": "wave"}.items() <= reaction["Data"].items()
    await database.execute("UPDATE posts SET deleted = true")
    assert (await bob.expect("PostDeleted"))["Data"] == created["Data"]
    await database.execute("UPDATE posts SET body = 'edited'")
    await database.execute("UPDATE posts SET deleted = false")
    assert (await bob.expect("PostCreated"))["Data"]["Body"] == "edited"

    await database.execute("UPDATE members SET left_at = now() WHERE login = 'ada'")
    await database.execute("UPDATE posts SET body = 'after she left'")
    await ada.next("MemberDeleted")
    await ada.expect("CompanyRevoked")
    await ada.quiet()
    await bob.expect("MemberDeleted")
    assert (await bob.expect("PostUpdated"))["Old"] == {"Body": "edited"}
    await database.execute("UPDATE members SET left_at = NULL WHERE login = 'eve'")
    assert (await bob.expect("MemberCreated"))["Data"]["Login"] == "eve"
    assert not (await eve.set_company("7"))["Success"], "she has not accepted yet"
    await database.execute("UPDATE members SET accepted = true")
    await bob.expect("MemberUpdated")
    assert (await eve.set_company("7"))["Success"]
    await database.execute("UPDATE members SET accepted = NULL WHERE login = 'eve'")
    await database.execute("UPDATE posts SET body = 'after she was put off'")
    await eve.expect("MemberUpdated")
    await eve.expect("CompanyRevoked")
    await eve.quiet()
    await bob.expect("MemberUpdated")
    await bob.expect("PostUpdated")


async def test_scopes_keep_teams_and_users_apart_on_the_socket(
    database: Database, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    await database.execute(f"{BOOKINGS.sql}; {MEMBERSHIPS}")
    (tmp_path / "notifier.toml").write_text(BOOKINGS.toml)
    given = {"database_url": database.dsn}
    status, output = await run(tmp_path, "migrate", **given)
    assert status == 0, output
    nodes = [await serve(database) for _ in range(2)]
    status, output = await run(tmp_path, "check", jwt_secret="x" * 40, **given)
    assert status == 0, output
    one = [await connect(node, "1", "team:3") for node in nodes]
    four = await connect(nodes[0], "4", "team:3")
    three = await connect(nodes[0], "3", "user:3")
    for user, company in (
        ("2", "team:3"),
        ("1", "3"),
        ("1", "user:3"),
        ("3", "team:3"),
        ("3", "user:03"),
    ):
        stranger = await connect(nodes[1], user)
        assert not (await stranger.set_company(company))["Success"], (user, company)

    await database.execute("""INSERT INTO "Booking" VALUES (1, 1, NULL, 'of the team')""")
    await database.execute("""INSERT INTO "Booking" VALUES (2, NULL, 3, 'private')""")
    for client in (*one, four):
        created = await client.expect("BookingCreated")
        assert created["Data"] == {
            "CompanyId": "team:3", "BookingId": 1, "EventTypeId": 1, "UserId": None, "Title": "of the team",
            "CancelledAt": None
        }  # fmt: skip
    private = await three.expect("BookingCreated")
    assert private["Data"]["CompanyId"] == "user:3"
    # The query decides, and a changed member row only causes a re-check of every user in the team.
    await database.execute("""UPDATE "Membership" SET accepted = false WHERE id = 1""")
    await database.execute("""UPDATE "Booking" SET title = 'later'""")
    for client in one:
        await client.expect("MembershipUpdated")
        await client.expect("CompanyRevoked")
        await client.quiet()
    await four.expect("MembershipUpdated")
    assert (await four.expect("BookingUpdated"))["Data"]["CompanyId"] == "team:3"
    await four.quiet()
    assert (await three.expect("BookingUpdated"))["Old"] == {"Title": "private"}
    await three.quiet()
