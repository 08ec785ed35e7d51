defmodule NetRunner.Process.Pattern do
  @moduledoc false
  # What `NetRunner.Process.read_until/3` waits for.

  # Of binaries the `longest` tells how much of what was looked at before may be the start of a match.
  @opaque t :: {:binaries, :binary.cp(), longest :: pos_integer()} | {:regex, Regex.t()}

  @spec new!(binary() | [binary(), ...] | Regex.t()) :: t()
  def new!(%Regex{} = regex), do: {:regex, regex}
  def new!(binary) when is_binary(binary), do: new!([binary])

  def new!([_ | _] = binaries) do
    if Enum.any?(binaries, &(not is_binary(&1) or &1 == "")), do: refuse(binaries)
    longest = binaries |> Enum.map(&byte_size/1) |> Enum.max()
    {:binaries, :binary.compile_pattern(binaries), longest}
  end

  def new!(other), do: refuse(other)

  @spec refuse(term()) :: no_return()
  defp refuse(pattern) do
    raise ArgumentError,
          "the pattern must be a binary that is not empty, a list of these, or a regex, got: #{NetRunner.Options.Kind.shown(pattern)}"
  end

  @doc """
  The earliest match, and of several there the longest, as its start and length in bytes. In the first `seen` bytes there
  is none.
  """
  @spec find(t(), binary(), non_neg_integer()) :: {non_neg_integer(), non_neg_integer()} | nil
  def find({:binaries, pattern, longest}, bytes, seen) do
    from = max(0, seen - longest + 1)

    case :binary.match(bytes, pattern, scope: {from, byte_size(bytes) - from}) do
      :nomatch -> nil
      found -> found
    end
  end

  def find({:regex, regex}, bytes, _seen) do
    with [found | _] <- Regex.run(regex, text(regex, bytes), return: :index), do: found
  end

  # With the modifier `u`, a regex refuses bytes that are not UTF-8, such as the first half of a character.
  defp text(regex, bytes) do
    if unicode?(Regex.opts(regex)), do: valid_start(bytes), else: bytes
  end

  # A string up to Elixir 1.18.
  defp unicode?(options) when is_binary(options), do: String.contains?(options, "u")
  defp unicode?(options), do: :unicode in options

  defp valid_start(bytes) do
    case :unicode.characters_to_binary(bytes) do
      {_incomplete_or_error, valid, _rest} -> valid
      valid -> valid
    end
  end
end
