defmodule NetRunner.Signal do
  @moduledoc """
  Names and numbers of signals, as `signal(7)` has them for this system.

      iex> NetRunner.Signal.resolve(:sigterm)
      {:ok, 15}
      iex> NetRunner.Signal.name(9)
      {:ok, :sigkill}

  Names are lower-case atoms with the `sig` in front: all of POSIX and those that the system has
  besides. `resolve/1` goes from names to numbers, `name/1` back.

  ## Platforms

  Numbers of the same name differ between systems (`:sigusr1` is 10 on Linux and 30 on macOS), so names are
  what to write in a program. Linux alone has `:sigstkflt`, `:sigpwr` and the synonyms `:sigpoll`
  (`:sigio`) and `:sigcld` (`:sigchld`); the BSDs and macOS alone have `:sigemt` and `:siginfo`. `:sigiot` is
  `:sigabrt` everywhere. Linux numbers are those of x86, ARM, RISC-V and most others.

  ## Real-time signals

  They are named as a shell's `kill -l` does: `:sigrtmin`, `:"sigrtmin+1"`, … `:"sigrtmax-1"`, `:sigrtmax`. Each
  number has one name; `resolve/1` knows it from either end.

      iex> NetRunner.Signal.resolve(:sigrtmin)
      {:ok, 34}
      iex> NetRunner.Signal.name(35)
      {:ok, :"sigrtmin+1"}
      iex> NetRunner.Signal.resolve(:"sigrtmax-29")
      {:ok, 35}

  On Linux they are 34 to 64: the kernel's begin at 32, but the C library keeps 32 and 33 for its
  threads (nptl(7)), and no program can be sent those by it. musl keeps 34 as well, so a program that is
  linked with musl means 35 by its `SIGRTMIN`. macOS has none; the numbers are those of FreeBSD.
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

  @real_time if :os.type() == {:unix, :linux}, do: 34..64, else: 65..126

  @real_time_names (for number <- @real_time do
                      {number - @real_time.first, @real_time.last - number, number}
                    end)

  # What `name/1` says is the name from the nearer end; in the middle, from the lower one.
  @from_min for {above, below, number} <- @real_time_names,
                do:
                  {if(above == 0, do: :sigrtmin, else: :"sigrtmin+#{above}"), number,
                   above <= below}
  @from_max for {above, below, number} <- @real_time_names,
                do:
                  {if(below == 0, do: :sigrtmax, else: :"sigrtmax-#{below}"), number,
                   above > below}

  @doc """
  The number of a signal; a number that is one stands for itself.

      iex> NetRunner.Signal.resolve(:sigint)
      {:ok, 2}
      iex> NetRunner.Signal.resolve(:sigrtmax)
      {:ok, 64}
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

  for {name, number, _} <- @from_min ++ @from_max do
    def resolve(unquote(name)), do: {:ok, unquote(number)}
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
              "#{inspect(signal)} is not a signal: give a name such as :sigterm or a number " <>
                "from 1 to 31 or #{inspect(@real_time)}"
    end
  end

  @doc """
  The name of a signal's number.

      iex> NetRunner.Signal.name(15)
      {:ok, :sigterm}
      iex> NetRunner.Signal.name(40)
      {:ok, :"sigrtmin+6"}
      iex> NetRunner.Signal.name(32)
      {:error, :unknown_signal}
  """
  @spec name(integer()) :: {:ok, atom()} | {:error, :unknown_signal}
  def name(number)

  for {name, number} <- @signals do
    def name(unquote(number)), do: {:ok, unquote(name)}
  end

  for {name, number, true} <- @from_min ++ @from_max do
    def name(unquote(number)), do: {:ok, unquote(name)}
  end

  def name(_), do: {:error, :unknown_signal}
end
