"""What the ssh collector is made of: sessions from the process table, logins from a log."""
