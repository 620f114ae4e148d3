"""The operators' page: TypeScript in src/, built into routing/console/static by `make console`."""
