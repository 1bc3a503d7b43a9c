"""Running a network: from pixels to joints, on any runtime, and its export."""
