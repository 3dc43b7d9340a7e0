-- Frozen at revision 0003. What `migrate` granted, so that `uninstall` revokes exactly that.
CREATE TABLE notifier.grants (
    role       text NOT NULL,              -- as pg_roles has it
    privilege  text NOT NULL,              -- as in GRANT and REVOKE, on the application's objects; 'serve': may serve
    PRIMARY KEY (role, privilege)
);
