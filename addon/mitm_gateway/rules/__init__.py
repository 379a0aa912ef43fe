"""The bytes of a rules file become a RuleSet; every mistake is reported with file, line and column."""
