using System.Buffers.Binary;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd.Client;

/// <summary>
/// One connection to an NBD server as a queue: requests are gathered into one send, replies taken from one receive,
/// payload of large ones straight into its place. Allocates nothing per request.
/// </summary>
internal sealed class NbdClientQueue : IBlockQueue
{
    private const int InputBytes = 256 << 10;
    private const int HeaderRoomBytes = 32;
    private const int MaxVectors = 256;

    private readonly StreamSocket _socket;
    private readonly BlockDeviceInfo _info;
    private readonly BlockRequest[] _slots;
    private readonly int[] _free;
    private readonly int[] _unsent;
    private readonly BlockCompletion[] _done;
    private readonly NativeBuffer _headers;
    private readonly NativeBuffer _input = new(InputBytes);
    private readonly IoVectorList _vectors = new(MaxVectors);
    private readonly EventPoll _poll = new(4);
    private readonly PollWake _wake = new();
    private int _freeCount;
    private int _unsentFirst;
    private int _unsentCount;
    private int _sentOfFirst;
    private int _doneFirst;
    private int _doneCount;
    private int _inputStart;
    private int _inputEnd;
    private int _receiving = -1;
    private int _received;
    private bool _failed;
    private bool _disposed;

    public NbdClientQueue(StreamSocket socket, BlockDeviceInfo info, int depth)
    {
        _socket = socket;
        _info = info;
        _slots = new BlockRequest[depth];
        _free = new int[depth];
        _unsent = new int[depth];
        _done = new BlockCompletion[depth];
        _headers = new NativeBuffer((long)depth * HeaderRoomBytes);
        for (int i = 0; i < depth; i++)
            _free[i] = depth - 1 - i;
        _freeCount = depth;
        _poll.Add(_wake, 0);
        _poll.Add(_socket, 1, SocketEvents.Readable);
    }

    public int Outstanding => _slots.Length - _freeCount;

    public bool TrySubmit(in BlockRequest request)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_freeCount == 0)
            return false;
        int index = _free[--_freeCount];
        _slots[index] = request;
        int error = _failed ? Errno.EIO : Check(request);
        if (error != 0)
        {
            End(index, error, 0);
            return true;
        }

        new NbdRequestHeader(
            NbdProtocol.RequestMagic,
            (request.Flags & BlockFlags.ForceUnitAccess) != 0 ? NbdCommandFlags.ForceUnitAccess : NbdCommandFlags.None,
            request.Operation switch
            {
                BlockOperation.Read => NbdCommand.Read,
                BlockOperation.Write => NbdCommand.Write,
                BlockOperation.Flush => NbdCommand.Flush,
                BlockOperation.Discard => NbdCommand.Trim,
                _ => NbdCommand.WriteZeroes,
            },
            (ulong)index,
            (ulong)request.Offset,
            (uint)request.Length).Encode(Header(index));
        int at = _unsentFirst + _unsentCount++;
        _unsent[at >= _unsent.Length ? at - _unsent.Length : at] = index;
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        if (!_failed)
        {
            SendUnsent();
            Receive();
        }

        int count = Math.Min(completions.Length, _doneCount);
        for (int i = 0; i < count; i++)
        {
            completions[i] = _done[_doneFirst];
            _doneFirst = _doneFirst + 1 == _done.Length ? 0 : _doneFirst + 1;
        }

        _doneCount -= count;
        return count;
    }

    public void Wait(int timeoutMicroseconds)
    {
        if (_doneCount > 0 || timeoutMicroseconds <= 0)
            return;
        // While a send is blocked nothing tells when it may go on: look again soon.
        long longest = _unsentCount > 0 ? Math.Min(timeoutMicroseconds, 1000) : timeoutMicroseconds;
        if (_poll.Wait(longest * 1000) > 0)
            _wake.Clear();
    }

    public void Interrupt() => _wake.Signal();

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _poll.Dispose();
        _wake.Dispose();
        _socket.Dispose();
        _headers.Dispose();
        _input.Dispose();
        _vectors.Dispose();
    }

    private int Check(in BlockRequest request)
    {
        if (request.Operation == BlockOperation.Flush)
            return request.Offset == 0 && request.Length == 0 ? 0 : Errno.EINVAL;
        if (request.Operation is BlockOperation.BlockStatus or BlockOperation.Cache)
            return Errno.EOPNOTSUPP;
        bool carries = request.Operation is BlockOperation.Read or BlockOperation.Write;
        bool fits = request.Length > 0 && request.Offset >= 0 && request.Length <= uint.MaxValue &&
            request.Offset <= _info.SizeBytes && request.Length <= _info.SizeBytes - request.Offset &&
            (!carries || (request.Data.Length == request.Length && request.Length <= _info.MaxTransferBytes));
        return fits ? 0 : Errno.EINVAL;
    }

    private Span<byte> Header(int index) => _headers.GetSpan((long)index * HeaderRoomBytes, NbdProtocol.RequestBytes);

    private int LengthOf(int index) =>
        NbdProtocol.RequestBytes + (_slots[index].Operation == BlockOperation.Write ? _slots[index].Data.Length : 0);

    private void SendUnsent()
    {
        while (_unsentCount > 0)
        {
            _vectors.Clear();
            for (int i = 0; i < _unsentCount && _vectors.Room >= 2; i++)
            {
                int at = _unsentFirst + i;
                int index = _unsent[at >= _unsent.Length ? at - _unsent.Length : at];
                int skip = i == 0 ? _sentOfFirst : 0;
                if (skip < NbdProtocol.RequestBytes)
                    _vectors.Add(_headers, (long)index * HeaderRoomBytes + skip, NbdProtocol.RequestBytes - skip);
                if (_slots[index].Operation != BlockOperation.Write)
                    continue;
                BufferSlice data = _slots[index].Data;
                int skipped = Math.Max(0, skip - NbdProtocol.RequestBytes);
                _vectors.Add(data.Buffer!, data.Offset + skipped, data.Length - skipped);
            }

            SocketResult result = _vectors.Send(_socket);
            if (result.Error != 0)
            {
                if (!result.WouldBlock)
                    Fail();
                return;
            }

            bool all = result.Count == _vectors.LengthBytes;
            DropSent(result.Count);
            if (!all)
                return;
        }
    }

    private void DropSent(int count)
    {
        while (count > 0)
        {
            int left = LengthOf(_unsent[_unsentFirst]) - _sentOfFirst;
            if (count < left)
            {
                _sentOfFirst += count;
                return;
            }

            count -= left;
            _sentOfFirst = 0;
            _unsentFirst = _unsentFirst + 1 == _unsent.Length ? 0 : _unsentFirst + 1;
            _unsentCount--;
        }
    }

    private void Receive()
    {
        _vectors.Clear();
        int direct = 0;
        if (_receiving >= 0)
        {
            BufferSlice data = _slots[_receiving].Data;
            direct = data.Length - _received;
            _vectors.Add(data.Buffer!, data.Offset + _received, direct);
        }

        int kept = _inputEnd - _inputStart;
        if (_inputStart > 0 && kept > 0)
            _input.GetSpan(_inputStart, kept).CopyTo(_input.GetSpan(0, kept));
        _inputStart = 0;
        _inputEnd = kept;
        _vectors.Add(_input, kept, InputBytes - kept);
        SocketResult result = _vectors.Receive(_socket);
        if (result.Error != 0 || result.Count == 0)
        {
            if (!result.WouldBlock)
                Fail();
            return;
        }

        int payload = Math.Min(result.Count, direct);
        _received += payload;
        _inputEnd += result.Count - payload;
        if (_receiving >= 0 && payload == direct)
            EndRead();
        while (_receiving < 0 && !_failed && _inputEnd - _inputStart >= NbdProtocol.SimpleReplyBytes)
            TakeReply();
    }

    private void TakeReply()
    {
        Span<byte> reply = _input.GetSpan(_inputStart, NbdProtocol.SimpleReplyBytes);
        ulong index = BinaryPrimitives.ReadUInt64BigEndian(reply[8..]);
        if (BinaryPrimitives.ReadUInt32BigEndian(reply) != NbdProtocol.SimpleReplyMagic ||
            index >= (ulong)_slots.Length || _slots[index].Operation == 0)
        {
            Fail();
            return;
        }

        int error = (int)Math.Min(BinaryPrimitives.ReadUInt32BigEndian(reply[4..]), 4095);
        _inputStart += NbdProtocol.SimpleReplyBytes;
        ref readonly BlockRequest request = ref _slots[index];
        if (error != 0 || request.Operation != BlockOperation.Read)
        {
            End((int)index, error, 0);
            return;
        }

        int there = Math.Min(_inputEnd - _inputStart, request.Data.Length);
        _input.GetSpan(_inputStart, there).CopyTo(request.Data.Span);
        _inputStart += there;
        _receiving = (int)index;
        _received = there;
        if (there == request.Data.Length)
            EndRead();
    }

    private void EndRead()
    {
        int index = _receiving;
        _receiving = -1;
        End(index, 0, _slots[index].Data.Length);
    }

    private void End(int index, int error, int result)
    {
        int at = _doneFirst + _doneCount++;
        _done[at >= _done.Length ? at - _done.Length : at] = new BlockCompletion(_slots[index].Cookie, error, result);
        _slots[index] = default;
        _free[_freeCount++] = index;
    }

    /// <summary>The connection is over, or the server broke the protocol: everything ends with EIO.</summary>
    private void Fail()
    {
        _failed = true;
        _receiving = -1;
        _unsentCount = 0;
        for (int index = 0; index < _slots.Length; index++)
        {
            if (_slots[index].Operation != 0)
                End(index, Errno.EIO, 0);
        }
    }
}
