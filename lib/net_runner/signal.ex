defmodule NetRunner.Signal do
  @moduledoc """
  Names and numbers of signals, as `signal(7)` has them for this system.

      iex> NetRunner.Signal.resolve(:sigterm)
      {:ok, 15}
      iex> NetRunner.Signal.name(9)
      {:ok, :sigkill}

  Names are lower-case atoms with the `sig` in front. Real-time signals have numbers only
  (on Linux 34 to 64).
  """

  @typedoc "A name such as `:sigterm`, or a number."
  @type t :: atom() | pos_integer()

  @linux [
    sighup: 1,
    sigint: 2,
    sigquit: 3,
    sigill: 4,
    sigtrap: 5,
    sigabrt: 6,
    sigbus: 7,
    sigfpe: 8,
    sigkill: 9,
    sigusr1: 10,
    sigsegv: 11,
    sigusr2: 12,
    sigpipe: 13,
    sigalrm: 14,
    sigterm: 15,
    sigstkflt: 16,
    sigchld: 17,
    sigcont: 18,
    sigstop: 19,
    sigtstp: 20,
    sigttin: 21,
    sigttou: 22,
    sigurg: 23,
    sigxcpu: 24,
    sigxfsz: 25,
    sigvtalrm: 26,
    sigprof: 27,
    sigwinch: 28,
    sigio: 29,
    sigpwr: 30,
    sigsys: 31
  ]

  # signal(3) of the BSDs, of which macOS is one.
  @bsd [
    sighup: 1,
    sigint: 2,
    sigquit: 3,
    sigill: 4,
    sigtrap: 5,
    sigabrt: 6,
    sigemt: 7,
    sigfpe: 8,
    sigkill: 9,
    sigbus: 10,
    sigsegv: 11,
    sigsys: 12,
    sigpipe: 13,
    sigalrm: 14,
    sigterm: 15,
    sigurg: 16,
    sigstop: 17,
    sigtstp: 18,
    sigcont: 19,
    sigchld: 20,
    sigttin: 21,
    sigttou: 22,
    sigio: 23,
    sigxcpu: 24,
    sigxfsz: 25,
    sigvtalrm: 26,
    sigprof: 27,
    sigwinch: 28,
    siginfo: 29,
    sigusr1: 30,
    sigusr2: 31
  ]

  @signals Map.get(%{{:unix, :linux} => @linux}, :os.type(), @bsd)
  @synonyms if :os.type() == {:unix, :linux},
              do: [sigiot: :sigabrt, sigpoll: :sigio, sigcld: :sigchld],
              else: [sigiot: :sigabrt]

  # The C library keeps 32 and 33 for its threads (nptl(7)).
  @real_time if :os.type() == {:unix, :linux}, do: 34..64, else: 65..126

  @doc """
  The number of a signal; a number that is one stands for itself.

      iex> NetRunner.Signal.resolve(:sigint)
      {:ok, 2}
      iex> NetRunner.Signal.resolve(40)
      {:ok, 40}
      iex> NetRunner.Signal.resolve(:sigwhat)
      {:error, :unknown_signal}
  """
  @spec resolve(t()) :: {:ok, pos_integer()} | {:error, :unknown_signal}
  def resolve(signal)

  for {name, number} <- @signals do
    def resolve(unquote(name)), do: {:ok, unquote(number)}
  end

  for {synonym, name} <- @synonyms do
    def resolve(unquote(synonym)), do: resolve(unquote(name))
  end

  def resolve(number) when number in 1..31 or number in @real_time, do: {:ok, number}
  def resolve(_), do: {:error, :unknown_signal}

  @doc """
  As `resolve/1`, but raises `ArgumentError` for what is no signal.

      iex> NetRunner.Signal.resolve!(:sigkill)
      9
  """
  @spec resolve!(t()) :: pos_integer()
  def resolve!(signal) do
    case resolve(signal) do
      {:ok, number} ->
        number

      {:error, :unknown_signal} ->
        raise ArgumentError,
              "#{inspect(signal)} is no signal: give a name such as :sigterm or a number " <>
                "from 1 to 31 or #{inspect(@real_time)}"
    end
  end

  @doc """
  The name of a signal's number.

      iex> NetRunner.Signal.name(15)
      {:ok, :sigterm}
      iex> NetRunner.Signal.name(40)
      {:error, :unknown_signal}
  """
  @spec name(integer()) :: {:ok, atom()} | {:error, :unknown_signal}
  def name(number)

  for {name, number} <- @signals do
    def name(unquote(number)), do: {:ok, unquote(name)}
  end

  def name(_), do: {:error, :unknown_signal}
end
