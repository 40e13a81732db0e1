"""The composition root: settings to models, backends and the service over them. The only place that wires."""
