#!/bin/sh
# Writes the manual page to stdout, of the page that is rendered from the commands. Needs pandoc.
set -eu
cd "$(dirname "$0")/.."
{
  printf '# NAME\n\nsdsetup - images of Stable Diffusion on GPUs that are not of NVIDIA\n\n# DESCRIPTION\n\n'
  # Without the heading, and what is said to people who change it.
  sed '1,/^$/d; /^Rendered from/,/^$/d' docs/reference/cli.md
} | pandoc --standalone --from gfm --to man --metadata title=SDSETUP --metadata section=1
