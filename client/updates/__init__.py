"""Updates of a device: fetch a release, trust it, try it, switch to it, watch it, keep it or go back. No torch here."""
