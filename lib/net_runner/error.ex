defmodule NetRunner.Error do
  @moduledoc """
  Raised by the streams: a command could not be started, or did not exit with 0.

  Fields:

    * `reason`: `:exit_status` when the command ran and failed, else what the functions that do not
      raise return as `{:error, reason}`;
    * `command`: `[executable | args]`;
    * `status`: the exit status, 128 + number for a signal; `nil` when it did not start;
    * `stderr`: the last bytes that the command wrote to stderr, where they were kept.

  The message is a sentence:

      iex> error = %NetRunner.Error{reason: :exit_status, command: ["make", "all"], status: 2, stderr: "no rule"}
      iex> Exception.message(error)
      "`make all` exited with status 2; the end of its stderr: no rule"
  """

  defexception [:reason, :command, :status, stderr: ""]

  @type t :: %__MODULE__{
          reason: term(),
          command: [String.t()],
          status: non_neg_integer() | nil,
          stderr: binary()
        }

  @impl true
  def message(%__MODULE__{} = error) do
    "`#{command_line(error.command)}` #{what_happened(error)}#{stderr(error.stderr)}"
  end

  defp what_happened(%{reason: :exit_status, status: status}) when status > 128 do
    case NetRunner.Signal.name(status - 128) do
      {:ok, name} -> "was ended by #{name |> to_string() |> String.upcase()} (status #{status})"
      {:error, :unknown_signal} -> "exited with status #{status}"
    end
  end

  defp what_happened(%{reason: :exit_status, status: status}), do: "exited with status #{status}"
  defp what_happened(%{reason: reason}), do: "failed: #{describe(reason)}"

  defp stderr(""), do: ""

  defp stderr(bytes) do
    text = bytes |> String.chunk(:valid) |> Enum.filter(&String.valid?/1) |> Enum.join()
    "; the end of its stderr: #{String.trim(text)}"
  end

  defp command_line(command) do
    if is_list(command) and not List.improper?(command) do
      Enum.map_join(command, " ", fn word ->
        if is_binary(word) and word =~ ~r/^[\w@%+=:,.\/-]+$/, do: word, else: quoted(word)
      end)
    else
      inspect(command)
    end
  end

  defp quoted(word) when is_binary(word), do: "'" <> String.replace(word, "'", "'\\''") <> "'"
  defp quoted(word), do: inspect(word)

  @doc "A reason, as it stands in `{:error, reason}`, in words."
  @spec describe(term()) :: String.t()
  def describe({:cd, reason}),
    do: "the working directory (:cd) cannot be used: #{describe(reason)}"

  def describe({:node, reason}), do: "its node (:node) #{describe_node(reason)}"

  def describe({:setup, reason}), do: "its process could not be set up: #{describe(reason)}"

  def describe({:user, :enoent}) do
    "there is no such user (:user); an ID that no user has needs a :group beside it"
  end

  def describe({option, :enoent}) when option in [:group, :groups],
    do: "there is no such group (#{inspect(option)})"

  def describe({option, reason})
      when option in [:stdin, :stdout, :stderr, :cgroup, :nice, :rlimits, :groups, :group] or
             option in [:user, :no_new_privs] do
    "the option #{inspect(option)} cannot be carried out: #{describe(reason)}"
  end

  def describe({:max_output_exceeded, _}), do: "it printed more than :max_output_size allows"
  def describe({tag, message}) when is_atom(tag) and is_binary(message), do: message
  def describe(:timeout), do: "it did not end within :timeout"
  def describe(:closed), do: "its pipe was closed by this side"
  def describe(:not_piped), do: "that stream of the command is not a pipe to the VM"

  def describe(:e2big),
    do: "its arguments and environment are larger than the system allows (ARG_MAX)"

  def describe(:launcher_died),
    do: "NetRunner's launcher died before the command was started; try again"

  def describe(:shepherd_died),
    do: "NetRunner's shepherd of the command died, and the command with it"

  def describe(:not_started) do
    "the :net_runner application is not started; add it to your application's dependencies, " <>
      "or call Application.ensure_all_started(:net_runner)"
  end

  def describe(reason) when is_atom(reason) do
    case :file.format_error(reason) do
      'unknown POSIX error' ++ _ -> inspect(reason)
      text -> "#{text} (#{inspect(reason)})"
    end
  end

  def describe(reason), do: inspect(reason)

  defp describe_node(:not_connected), do: "is not connected: call Node.connect/1 first"

  defp describe_node(:disconnected),
    do: "lost its connection to this one, and the command was ended"

  defp describe_node(:no_net_runner), do: "does not have NetRunner"

  defp describe_node(:not_started) do
    "does not run the :net_runner application: call Application.ensure_all_started(:net_runner) there"
  end

  defp describe_node({:version, theirs}) do
    "has NetRunner #{theirs}, and this one #{Application.spec(:net_runner, :vsn)}: " <>
      "both need the same version"
  end
end
