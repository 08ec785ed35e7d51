defmodule NetRunner.Sandbox.Refusal do
  @moduledoc false
  # Why a sandbox could not be made, in a sentence that says what to change. Pure.

  alias NetRunner.Error
  alias NetRunner.Sandbox.Policy

  @type part ::
          :system
          | :filesystem
          | :signals
          | :ports
          | :filter
          | :capabilities
          | :user
          | :processes
          | :proc
          | :mounts
          | :tmp
          | :metadata
          | :loopback

  # How the shepherd says that the kernel has Landlock, but too old a version of it.
  @too_old :eprotonosupport

  # From which Linux on Landlock can do it.
  @since %{filesystem: "6.2", ports: "6.7", signals: "6.12"}

  @doc "What the shepherd could not do, and the error of the system."
  @spec sentence(part() | (index :: non_neg_integer()), atom(), Policy.t()) :: String.t()
  def sentence(index, errno, policy) when is_integer(index) do
    case Policy.path(policy, index) do
      nil -> "one of the paths of the sandbox #{cannot_be_opened(errno)}"
      path -> "the path #{inspect(path)} of the sandbox #{cannot_be_opened(errno)}"
    end
  end

  def sentence(part, errno, _policy), do: sentence(part, errno)

  defp cannot_be_opened(:enoent), do: "does not exist"
  defp cannot_be_opened(:enotdir), do: "leads through a file that is not a directory"
  defp cannot_be_opened(:eloop), do: "leads into a process (/proc), or through too many links"

  defp cannot_be_opened(errno) when errno in [:enosys, :eperm],
    do:
      "cannot be opened as the sandbox needs it: openat2(2) is missing (before Linux 5.6), or a container's seccomp profile " <>
        "refuses it (#{inspect(errno)})"

  defp cannot_be_opened(errno), do: "cannot be opened: #{Error.system_error(errno)}"

  defp sentence(:system, _errno) do
    "there is a sandbox on Linux only"
  end

  defp sentence(part, @too_old) when is_map_key(@since, part) do
    "#{limit(part)} needs Linux #{@since[part]}, and this kernel is older#{give_up(part)}"
  end

  defp sentence(part, errno) when is_map_key(@since, part) and errno in [:enosys, :eperm] do
    "#{limit(part)} needs Landlock, which this kernel does not have (CONFIG_SECURITY_LANDLOCK, since Linux 5.13), or a " <>
      "container's seccomp profile refuses it (#{inspect(errno)})#{give_up(part)}"
  end

  defp sentence(part, :eopnotsupp) when is_map_key(@since, part) do
    "#{limit(part)} needs Landlock, which was not enabled when this kernel was booted (add landlock to lsm= on its " <>
      "command line)#{give_up(part)}"
  end

  defp sentence(part, :e2big) when is_map_key(@since, part) do
    "the command would be in a 17th sandbox, and the kernel has room for 16, one inside the other"
  end

  defp sentence(:filter, :enosys) do
    "the limits of system calls and of the network need seccomp, which NetRunner has on x86-64 and 64-bit ARM" <>
      "; `without: [:system_calls, :network]` gives them up"
  end

  defp sentence(:filter, :einval) do
    "the limits of system calls and of the network need seccomp, which this kernel does not have " <>
      "(CONFIG_SECCOMP_FILTER)" <> "; `without: [:system_calls, :network]` gives them up"
  end

  defp sentence(:mounts, :einval) do
    "#{limit(:mounts)} needs a mount namespace, and the VM's root directory is no mount point, as in a plain chroot: " <>
      "mount it on itself before (mount --bind DIR DIR), or use a container"
  end

  defp sentence(:mounts, :estale),
    do: "one of the paths of the sandbox was replaced by something else while the command started"

  defp sentence(:user, :eopnotsupp) do
    "a sandbox with namespaces for another user (:user, :group, :groups) needs a VM with CAP_SYS_ADMIN, since a user namespace " <>
      "has only the VM's own user"
  end

  defp sentence(part, errno)
       when part in [:user, :processes, :mounts, :tmp, :metadata, :loopback] do
    "#{limit(part)} needs namespaces, and the kernel refuses them (#{inspect(errno)}): " <>
      "without CAP_SYS_ADMIN, a user namespace must be allowed (kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, " <>
      "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with userns), and in a container its seccomp profile " <>
      "must allow unshare, mount, open_tree, move_mount and mount_setattr (Linux 5.12)"
  end

  defp sentence(:proc, :enoent) do
    "a sandbox with `processes:`, `tmp:` or `metadata:` needs /proc, which is not mounted here: `mount -t proc proc /proc`"
  end

  defp sentence(:proc, errno) do
    "`processes: :own` needs a /proc of its own, and the kernel refuses to mount one (#{inspect(errno)}): in a container, parts " <>
      "of /proc are masked; run it with an unmasked /proc (docker: --security-opt systempaths=unconfined)"
  end

  defp sentence(part, errno),
    do: "#{limit(part)} cannot be enforced on this machine: #{Error.describe(errno)}"

  defp limit(:filesystem), do: "the limit of files (`read:`, `write:`, `exec:`)"
  defp limit(:signals), do: "the limit of signals"
  defp limit(:ports), do: "the limit of ports (`network:`)"
  defp limit(:filter), do: "the limit of system calls and of the network"
  defp limit(:capabilities), do: "the loss of all capabilities"

  defp limit(:user),
    do: "a sandbox with `processes:`, `tmp:`, `metadata:` or `network: :loopback`"

  defp limit(:processes), do: "`processes: :own`"
  defp limit(:mounts), do: "a sandbox with `processes:`, `tmp:` or `metadata:`"
  defp limit(:tmp), do: "`tmp: :private`"
  defp limit(:metadata), do: "`metadata: :locked`"
  defp limit(:loopback), do: "`network: :loopback`"

  defp give_up(:ports), do: ""
  defp give_up(layer), do: "; `without: [#{inspect(layer)}]` gives it up"
end
