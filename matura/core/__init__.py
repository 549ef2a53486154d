"""The words every other room speaks: types, errors, records, random streams, the store, the
ledger."""
