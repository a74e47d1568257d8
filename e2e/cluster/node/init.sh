# First process of a node: runs in new mount, pid, uts and ipc namespaces and in the node's network namespace.
#
# It gives the node its own /run (a tmpfs) and /var (a folder of the checkout), so that every daemon finds the usual
# paths and none of them touches the host's. Environment: NAME, NODE (the node's folder), PKI, LOG, IMAGES, LOADED,
# BIN, CNI (folders that appear under /run/althing), PID_FILE (on the host).
set -eu
# mount -n: the table of user space mounts under the old /run is none of our business.

# /proc is still the host's here, so this is the host's number of this very process.
read -r pid rest </proc/self/stat
echo "$pid" >"$PID_FILE.new"
mv "$PID_FILE.new" "$PID_FILE"

mount -n --make-rslave /
# Other nodes' network namespaces are mounts, too; a copy of one here would keep it alive after its end.
umount -n --all --types nsfs --lazy 2>/dev/null || true

# The new /run is put together aside, because what goes into it may itself lie under the old /run or /var.
run=$NODE/run
mount -n -t tmpfs -o mode=755 tmpfs "$run"
mkdir -p "$run/netns" "$run/lock" "$run/fake" "$run/cgroup"
mkdir -p "$run/althing/node" "$run/althing/pki" "$run/althing/log" "$run/althing/images" "$run/althing/loaded" \
  "$run/althing/bin" "$run/althing/cni"
mount -n --bind "$NODE" "$run/althing/node"
mount -n --bind "$PKI" "$run/althing/pki"
mount -n --bind "$LOG" "$run/althing/log"
mount -n --bind "$LOADED" "$run/althing/loaded"
for pair in "$IMAGES:images" "$BIN:bin" "$CNI:cni"; do
  mount -n --bind "${pair%:*}" "$run/althing/${pair##*:}"
  mount -n -o remount,bind,ro "$run/althing/${pair##*:}"
done
mount -n --rbind /sys/fs/cgroup "$run/cgroup"
mount -n --move "$run" /run

mount -n -t proc proc /proc
# A new sysfs shows this network namespace's devices, but hides the cgroups.
mount -n -t sysfs sysfs /sys
mount -n --rbind /run/cgroup /sys/fs/cgroup
umount -n --lazy /run/cgroup
mount -n --bind /run/althing/node/var /var
mount -n --bind /run/althing/node/hosts /etc/hosts
# A link into /run (systemd-resolved) is left alone: no daemon of ours resolves names with it.
[ -L /etc/resolv.conf ] || [ ! -e /etc/resolv.conf ] || mount -n --bind /run/althing/node/resolv.conf /etc/resolv.conf

# kubelet insists on these global settings; it shall not change the machine's, so it gets files that look like them.
while read -r file value; do
  fake=/run/fake/$(echo "$file" | tr / _)
  echo "$value" >"$fake"
  mount -n --bind "$fake" "/proc/sys/$file"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

# kubelet's volume mounts must reach containerd's containers.
mount -n --make-rshared /
hostname "$NAME"
touch /run/althing/node/ready
exec /run/althing/bin/catatonit -P
