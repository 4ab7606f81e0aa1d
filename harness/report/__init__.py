"""What a run leaves for people and programs: results.json, report.html, JUnit, a summary table."""
