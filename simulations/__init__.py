"""Virtual fleets on one machine: scenarios, partitions, engines, references and reports."""
