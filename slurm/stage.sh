#!/usr/bin/env bash
# Copies shard folders to this node's own disk, where they are not there yet, and checks every byte of the copies.
#
#     stage.sh LOCAL_DISK SHARDS...
#
# A copy is LOCAL_DISK/attrtrain-<uid>/<checksum of its manifest>: other shards are another copy, and a copy under that
# name is whole. It is left for the next job on this node.
set -euo pipefail
disk=$1/attrtrain-$UID
shift
mkdir -p "$disk"
for folder in "$@"; do
    copy=$disk/$(sha256sum <"$folder/manifest.json" | cut -c 1-16)
    (
        flock 9 # several jobs may begin on one node
        if [ -d "$copy" ]; then
            touch "$copy"
            exit
        fi
        rm -rf "$copy.partial"
        trap 'rm -rf "$copy.partial"' EXIT
        cp -r "$folder" "$copy.partial"
        attrtrain verify "$copy.partial"
        mv "$copy.partial" "$copy"
        trap - EXIT
        echo "$(hostname): copied $folder to $copy" >&2
    ) 9>"$copy.lock"
done
