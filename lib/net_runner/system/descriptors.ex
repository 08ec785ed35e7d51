defmodule NetRunner.System.Descriptors do
  @moduledoc false
  # The further descriptors of a command, those of `:fds`: what may be said of one, and what that means for who starts it.

  alias NetRunner.Options.Kind
  alias NetRunner.System.Native

  @type fd :: 3..255
  @type kind ::
          :input
          | :output
          | {:input, iodata()}
          | {:input | :output | :append, {:file, Path.t()}}
  @type t :: %{fd() => kind()}

  # What travels to a shepherd at once (SCM_MAX_FD, unix(7)), without what each command takes of that.
  @most_pipes 248

  @doc "What is wrong with the value of `:fds`, in words that show no input; `nil`: nothing is."
  @spec problem(term()) :: String.t() | nil
  def problem(fds) when is_map(fds) and not is_struct(fds) do
    with nil <- Enum.find_value(fds, &problem_of/1) do
      if Enum.count(fds, &pipe?/1) > @most_pipes,
        do: "more than #{@most_pipes} that are not files"
    end
  end

  def problem(other), do: Kind.of(other)

  defp problem_of({number, kind}) do
    cond do
      not is_integer(number) -> "a key that is not a number"
      number not in 3..255 -> "the number #{number}"
      not kind?(kind) -> "#{wrong(kind)} for #{number}"
      true -> nil
    end
  end

  defp wrong(kind) when is_atom(kind), do: inspect(kind)
  defp wrong({:file, _path}), do: "{:file, path}"

  defp wrong({kind, {:file, _path}}) when kind in [:input, :output, :append],
    do: "a path that is empty, contains a NUL byte or is not a string"

  defp wrong({kind, _}) when kind in [:output, :append],
    do: "{#{inspect(kind)}, …} with something else than {:file, path}"

  defp wrong({:input, _iodata}),
    do: "{:input, …} with something else than iodata or {:file, path}"

  defp wrong(other), do: Kind.of(other)

  defp kind?(kind) when kind in [:input, :output], do: true

  defp kind?({kind, {:file, path}}) when kind in [:input, :output, :append],
    do: is_binary(path) and path != "" and :binary.match(path, <<0>>) == :nomatch

  defp kind?({:input, iodata}) when is_binary(iodata) or is_list(iodata), do: iodata?(iodata)
  defp kind?(_other), do: false

  defp iodata?(iodata) do
    _ = :erlang.iolist_size(iodata)
    true
  rescue
    ArgumentError -> false
  end

  defp pipe?({_number, {_kind, {:file, _path}}}), do: false
  defp pipe?({_number, _kind}), do: true

  @doc "Whether some are written or read by calls, for which there has to be a `NetRunner.Process`."
  @spec on_demand?(t()) :: boolean()
  def on_demand?(fds), do: Enum.any?(fds, fn {_number, kind} -> kind in [:input, :output] end)

  @doc "What the system is asked for."
  @spec connections(t()) :: [{fd(), Native.further()}]
  def connections(fds), do: for({number, kind} <- fds, do: {number, connection(kind)})

  defp connection({:input, {:file, path}}), do: {:read, path}
  defp connection({:output, {:file, path}}), do: {:file, path}
  defp connection({:append, {:file, path}}), do: {:append, path}
  defp connection({:input, _iodata}), do: :input
  defp connection(kind), do: kind

  @doc "What the server writes by itself."
  @spec inputs(t()) :: [{fd(), [binary()]}]
  def inputs(fds) do
    for {number, {:input, iodata}} when is_binary(iodata) or is_list(iodata) <- fds,
        do: {number, :erlang.iolist_to_iovec(iodata)}
  end

  @doc "As it may be shown."
  @spec without_inputs(t()) :: map()
  def without_inputs(fds), do: Map.new(fds, fn {number, kind} -> {number, shown(kind)} end)

  defp shown({:input, {:file, _path}} = file), do: file
  defp shown({:input, _iodata}), do: {:input, :hidden}
  defp shown(kind), do: kind
end
