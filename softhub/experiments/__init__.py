"""What people do with the other rooms: runs with their reports, comparisons, distillation."""
